import io
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from dmlcore.config.trial import RandomCropConfig
from dmlcore.core.errors import DataError
from dmlcore.data.images import RawImages
from dmlcore.data.jpeg import JPEG_OPTIONS, JpegImages
from dmlcore.training.input_pipeline import DRAWS, InputPipeline, random_boxes

CROP = RandomCropConfig(scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
SHAPES = ((96, 128), (128, 96), (96, 96), (40, 200), (17, 23))
ONE_LEVEL = 1.0 + 1e-9  # torch rounds after each of its two passes


def photograph(height, width, seed=0):
    """Smooth colours with some noise on them, [H, W, 3]."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 6, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


def jpegs(pictures, **options):
    files = []
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, **(JPEG_OPTIONS | options))
        files.append(file.getvalue())
    lengths = np.array([len(file) for file in files])
    return JpegImages(np.frombuffer(b"".join(files), np.uint8), np.cumsum(lengths) - lengths, lengths)


def photographs(count=20):
    return jpegs([photograph(*SHAPES[i % len(SHAPES)], seed=i) for i in range(count)])


def raw(count=12, size=32, channels=3):
    return RawImages(np.random.default_rng(1).integers(0, 256, (count, size, size, channels), np.uint8))


def training_batch(pipeline, indices, generator):
    return next(pipeline.training_batches([indices], generator))


def naive_weights(length, size):
    """[size, length]: a triangle as wide as the pixel it stands for, over what lies inside, summing to 1."""
    scale = length / size
    reach = max(scale, 1.0)
    centres = (np.arange(size) + 0.5) * scale
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(length) + 0.5 - centres[:, None]) / reach)
    return weights / weights.sum(axis=1, keepdims=True)


def naive_input(image, box, size, mirror):
    """float64 twin of crop, antialiased bilinear resize, mirror."""
    top, left, height, width = box
    crop = image[top : top + height, left : left + width].astype(np.float64)
    rows = np.tensordot(naive_weights(height, size), crop, axes=(1, 0))
    resized = np.einsum("sw,hwc->hsc", naive_weights(width, size), rows)
    return resized[:, ::-1] if mirror else resized


@pytest.mark.parametrize("size", [24, 64, 150])
@pytest.mark.parametrize(
    "images",
    [photographs(), raw(), raw(channels=1)],
    ids=["jpeg", "raw", "grey"],
)
def test_a_batch_is_crop_resize_mirror_of_the_stored_images(images, size):
    indices = np.arange(len(images))[::-1].copy()
    pipeline = InputPipeline(images, size=size, random_crop=CROP, flip=True)
    batch = training_batch(pipeline, indices, np.random.default_rng(3))
    draws = np.random.default_rng(3).random((len(indices), DRAWS))
    boxes = random_boxes(draws, images.sizes(indices), CROP)
    assert batch.shape == (len(images), size, size, images.channels)
    assert batch.dtype == torch.uint8
    assert batch.is_contiguous()
    for i, index in enumerate(indices):
        expected = naive_input(images.read(index), boxes[i], size, draws[i, -1] < 0.5)
        assert np.abs(batch[i].numpy() - expected).max() <= ONE_LEVEL


def test_the_batch_is_the_same_for_every_number_of_workers():
    images, batches = photographs(), [np.array([3, 1, 4, 1, 5]), np.array([9]), np.arange(20)]
    one, four = (
        list(
            InputPipeline(images, size=32, random_crop=CROP, flip=True, workers=workers).training_batches(
                batches, np.random.default_rng(0)
            )
        )
        for workers in (1, 4)
    )
    alone = np.random.default_rng(0)
    pipeline = InputPipeline(images, size=32, random_crop=CROP, flip=True)
    for indices, first, second in zip(batches, one, four, strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, training_batch(pipeline, indices, alone))


@pytest.mark.parametrize(("size", "crop", "flip"), [(16, CROP, True), (16, None, False), (None, None, True)])
def test_equally_many_draws_whatever_is_asked_for(size, crop, flip):
    generator = np.random.default_rng(5)
    pipeline = InputPipeline(raw(), size=size, random_crop=crop, flip=flip)
    training_batch(pipeline, np.arange(7), generator)
    expected = np.random.default_rng(5)
    expected.random((7, DRAWS))
    assert generator.random() == expected.random()


def test_crops_have_the_drawn_areas_and_ratios_and_lie_inside():
    count, size = 20_000, 1000  # large, so that rounding to pixels does not show
    sizes = np.full((count, 2), size)
    boxes = random_boxes(np.random.default_rng(0).random((count, DRAWS)), sizes, CROP)
    area, ratio = boxes[:, 2] * boxes[:, 3] / size**2, boxes[:, 3] / boxes[:, 2]
    assert 0.079 < area.min() < 0.09
    assert 0.95 < area.max() <= ONE_LEVEL
    assert 0.749 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 1.34
    assert abs(np.log(ratio).mean()) < 0.01  # symmetric in the logarithm
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= size).all()
    room = boxes[:, 2] < size
    place = boxes[room, 0] / (size - boxes[room, 2])
    assert np.allclose(np.quantile(place, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.02)


def test_crops_follow_torchvisions_distribution():
    from torchvision.transforms import RandomResizedCrop

    count, height, width = 4000, 256, 341
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, CROP.scale, CROP.ratio) for _ in range(count)])
    draws = np.random.default_rng(0).random((count, DRAWS))
    ours = random_boxes(draws, np.tile([height, width], (count, 1)), CROP)
    for quantity in range(4):  # top, left, height, width
        for share in (0.1, 0.5, 0.9):
            pair = np.quantile(ours[:, quantity], share), np.quantile(theirs[:, quantity], share)
            assert abs(pair[0] - pair[1]) < 9  # pixels; standard error about 2


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (100, 1000, (0, 433, 100, 133)),  # too wide: 100 * 4 / 3, in the middle
        (1000, 100, (433, 0, 133, 100)),  # too high: 100 / (3 / 4)
        (100, 110, (0, 0, 100, 110)),  # allowed: whole
    ],
)
def test_a_crop_that_never_fits_falls_back_to_the_centre(height, width, box):
    crop = RandomCropConfig.model_construct(scale=(5.0, 5.0), ratio=CROP.ratio)
    boxes = random_boxes(np.full((1, DRAWS), 0.5), np.array([[height, width]]), crop)
    assert tuple(boxes[0]) == box


def test_evaluation_takes_the_centre_without_resizing():
    images = photographs()
    batch = InputPipeline(images, size=32, random_crop=CROP, flip=True).evaluation_batch(np.array([0, 1]))
    assert np.array_equal(batch[0], images.read(0)[32:64, 48:80])  # of 96 x 128
    assert np.array_equal(batch[1], images.read(1)[48:80, 32:64])  # of 128 x 96


def test_evaluation_resizes_the_largest_square_of_a_smaller_image():
    images = photographs()
    batch = InputPipeline(images, size=64, random_crop=None).evaluation_batch(np.array([3]))
    expected = naive_input(images.read(3), (0, 80, 40, 40), 64, mirror=False)  # of 40 x 200
    assert np.abs(batch[0].numpy() - expected).max() <= ONE_LEVEL


def test_evaluation_batches_are_all_images_in_order():
    images = photographs()
    pipeline = InputPipeline(images, size=16, random_crop=None, workers=2)
    batches = list(pipeline.evaluation_batches(8))
    assert [len(batch) for batch in batches] == [8, 8, 4]
    assert torch.equal(torch.cat(batches), pipeline.evaluation_batch(np.arange(20)))


def test_without_a_crop_training_differs_by_the_mirror_alone():
    images = raw(count=40)
    pipeline = InputPipeline(images, size=None, random_crop=None, flip=True)
    stored = torch.from_numpy(images.array)
    assert torch.equal(pipeline.evaluation_batch(np.arange(40)), stored)
    batch = training_batch(pipeline, np.arange(40), np.random.default_rng(0))
    same = (batch == stored).flatten(1).all(dim=1)
    mirrored = (batch == stored.flip(2)).flatten(1).all(dim=1)
    assert (same ^ mirrored).all()
    assert 8 < mirrored.sum() < 32


def test_the_largest_crop_of_the_smallest_image():
    tiny = jpegs([photograph(1, 1), photograph(2, 9)])
    pipeline = InputPipeline(tiny, size=8, random_crop=CROP)
    batch = training_batch(pipeline, np.array([0, 1]), np.random.default_rng(0))
    assert (batch[0] == batch[0, 0, 0]).all()
    assert batch.shape == (2, 8, 8, 3)


def input_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("inputs")]


def test_leaving_early_ends_the_threads():
    pipeline = InputPipeline(photographs(), size=32, random_crop=CROP, workers=3)
    batches = pipeline.training_batches([np.arange(20)] * 50, np.random.default_rng(0))
    next(batches)
    assert input_threads()
    batches.close()
    assert not input_threads()


def test_a_failing_consumer_ends_the_threads():
    pipeline = InputPipeline(photographs(), size=32, random_crop=None, workers=2)

    def consume():
        for _ in pipeline.evaluation_batches(4):
            raise ValueError("consumer")

    with pytest.raises(ValueError, match="consumer"):
        consume()
    assert not input_threads()


def test_a_broken_image_is_raised_where_its_batch_is_due():
    images = photographs()
    data = images.data.copy()
    data[images.offsets[10] + 20 : images.offsets[10] + images.lengths[10]] = 0
    broken = JpegImages(data, images.offsets, images.lengths)
    batches = InputPipeline(broken, size=16, random_crop=None).evaluation_batches(5)
    with pytest.raises(DataError, match="image 10 "):
        list(batches)
    assert not input_threads()


@pytest.mark.parametrize("index", [-1, 12])
def test_an_index_outside_is_an_error(index):
    pipeline = InputPipeline(raw(), size=16, random_crop=None)
    with pytest.raises(DataError, match=rf"indices must be 0\.\.11, got \[{index}\]"):
        pipeline.evaluation_batch(np.array([0, index]))
    with pytest.raises(DataError, match="indices"):
        training_batch(pipeline, np.array([index]), np.random.default_rng(0))


def test_settings_that_do_not_fit_are_errors():
    with pytest.raises(DataError, match="all images must have one size"):
        InputPipeline(photographs(), size=None, random_crop=None)
    with pytest.raises(DataError, match="random_crop needs `size`"):
        InputPipeline(raw(), size=None, random_crop=CROP)
    with pytest.raises(DataError, match="workers must be at least 1, got 0"):
        InputPipeline(raw(), size=16, random_crop=None, workers=0)
    with pytest.raises(DataError, match="size must be at least 1, got 0"):
        InputPipeline(raw(), size=0, random_crop=None)


def test_jpeg_images_of_one_size_need_no_size():
    images = jpegs([photograph(20, 30, seed) for seed in range(3)])
    batch = InputPipeline(images, size=None, random_crop=None).evaluation_batch(np.arange(3))
    assert np.array_equal(batch, np.stack([images.read(i) for i in range(3)]))
