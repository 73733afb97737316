import io
import json

import numpy as np
import pytest
from PIL import Image

from dmlcore.config.data import DatasetConfig, PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.data.dataset import PreparedDataset
from dmlcore.datasets.prepare.catalogue import Catalogue, Item
from dmlcore.datasets.prepare.encoding import encoder
from dmlcore.datasets.prepare.near_duplicates import difference_hash
from tests.datasets.photo_files import encode, photo_catalogue, photograph

ITEM = Item("a", "a", "a/0.jpg", split_text="a")
JPEG = PreprocessConfig(encoding="jpeg", image_size=32)


def encoded(image, config=JPEG, channels=3):
    return encoder(Catalogue((ITEM,), lambda item: image, channels, "", ""), config)(ITEM)


def decoded(found):
    return Image.open(io.BytesIO(found.data))


def test_a_photograph_becomes_a_jpeg_with_the_short_side_asked_for():
    found = encoded(encode(photograph(0, (120, 80))))
    image = decoded(found)
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (48, 32))
    assert (found.height, found.width) == (32, 48)
    expected = photograph(0, (120, 80)).resize((48, 32), Image.Resampling.BICUBIC)
    error = np.asarray(image).astype(float) - np.asarray(expected)
    assert np.sqrt((error**2).mean()) < 6


def test_small_photographs_are_enlarged():
    assert decoded(encoded(encode(photograph(0, (12, 10))))).size == (38, 32)


@pytest.mark.parametrize("size", [(3000, 1), (1, 3000), (400, 40)])
def test_long_thin_photographs_are_cut_to_four_to_one(size):
    wide = size[0] > size[1]
    assert decoded(encoded(encode(photograph(0, size)))).size == ((128, 32) if wide else (32, 128))


def test_what_is_cut_off_lies_on_both_ends():
    pixels = np.zeros((10, 100, 3), np.uint8)
    pixels[:, 45:55] = 255
    found = np.asarray(decoded(encoded(encode(Image.fromarray(pixels)))))[:, :, 0]
    assert abs(np.average(np.arange(128), weights=found.mean(axis=0)) - 63.5) < 1


def test_orientation_and_colours_are_those_of_the_squares():
    exif = Image.Exif()
    exif[0x0112] = 6  # with_progress turned by 90 degrees clockwise
    found = decoded(encoded(encode(photograph(0, (80, 40)).convert("CMYK"), "JPEG", exif=exif)))
    assert (found.mode, found.size) == ("RGB", (32, 64))
    assert "exif" not in found.info


def test_quality_is_that_of_the_settings():
    file = encode(photograph(0, (64, 64)))
    configs = [JPEG.model_copy(update={"jpeg_quality": quality}) for quality in (60, 80, 95)]
    sizes = [len(encoded(file, config).data) for config in configs]
    assert sizes == sorted(set(sizes))


def test_drawn_pixels_can_be_stored_as_jpeg():
    pixels = np.asarray(photograph(0, (16, 16)).convert("L"))[:, :, None]
    found = decoded(encoded(pixels, channels=1))
    assert (found.mode, found.size) == ("RGB", (32, 32))


def test_a_photograph_stored_raw_is_its_square():
    found = encoded(encode(photograph(0, (40, 20))), PreprocessConfig(image_size=8))
    assert (found.height, found.width, len(found.data)) == (8, 8, 8 * 8 * 3)


def test_a_photograph_of_one_channel_is_grey():
    found = encoded(encode(photograph(0, (16, 16))), PreprocessConfig(image_size=8), channels=1)
    grey = photograph(0, (16, 16)).resize((8, 8), Image.Resampling.BICUBIC).convert("L")
    assert found.data == grey.tobytes()


def test_drawn_pixels_stored_raw_stay_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 9, 1), np.uint8)
    found = encoded(pixels, PreprocessConfig(), channels=1)
    assert found.data == pixels.tobytes()
    assert (found.height, found.width) == (5, 9)
    assert found.difference_hash == difference_hash(Image.fromarray(pixels[:, :, 0]))


def test_an_unreadable_photograph_gives_its_error_and_no_bytes():
    found = encoded(b"no image")
    assert "'a/0.jpg': unreadable image" in found.error
    assert (found.data, found.height, found.width) == (b"", 0, 0)


def test_pixels_of_another_kind_are_a_fault_of_the_catalogue():
    with pytest.raises(DataError, match=r"'a/0.jpg': pixels must be uint8 \[H, W, 3\]"):
        encoded(np.zeros((4, 4, 1), np.uint8))


def test_a_data_set_of_jpegs_is_read_back(prepared):
    catalogue = photo_catalogue()
    dataset = prepared(catalogue, PreprocessConfig(encoding="jpeg", image_size=24))
    assert (dataset.summary["encoding"], dataset.summary["channels"]) == ("jpeg", 3)
    assert dataset.manifest.select("height", "width").unique().height == len(
        {(24, 32), (32, 24), (24, 24), (24, 72)}
    )
    split = dataset.split("test")
    files = {item.source: catalogue.read(item) for item in catalogue.items}
    for place, row in enumerate(dataset.manifest[split.index].iter_rows(named=True)):
        pixels = split.images.read(place)
        assert pixels.shape == (row["height"], row["width"], 3)
        original = Image.open(io.BytesIO(files[row["source"]])).resize(pixels.shape[1::-1])
        assert np.abs(pixels.astype(float) - np.asarray(original)).mean() < 12


def test_jpegs_are_not_taken_for_raw_pixels(prepared):
    folder = prepared(photo_catalogue(), PreprocessConfig(encoding="jpeg", image_size=24)).folder
    summary = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(summary | {"encoding": "raw"}))
    with pytest.raises(DataError, match="`length` must be height x width x 3"):
        PreparedDataset.open(folder)


def test_inverted_drawings_are_light_on_dark():
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    config = PreprocessConfig(image_size=8, invert=True)
    found = encoded(pixels, config, channels=1)
    assert found.data == (255 - pixels.astype(int)).astype(np.uint8).tobytes()
    assert found.difference_hash == difference_hash(Image.fromarray(255 - pixels[:, :, 0]))
    with pytest.raises(ValueError, match="`invert` works for encoding `raw` only, got encoding `jpeg`"):
        DatasetConfig(kind="mnist", source="a.json", preprocess={"encoding": "jpeg", "invert": True})
