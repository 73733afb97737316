import numpy as np
import torch

from dmlcore.config.data import PreprocessConfig
from dmlcore.data.images import RawImages
from dmlcore.sweep.baselines import raw_pixel_embeddings
from tests.datasets.photo_files import photo_catalogue


def random_images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_pixels_less_their_mean():
    images = np.array([[[[0]]], [[[255]]], [[[102]]]], np.uint8)  # [3, 1, 1, 1]
    # to_float gives -1, 1 and 0.8 - 1 = -0.2; mean -0.2 / 3
    expected = torch.tensor([[-1.0], [1.0], [-0.2]]) + 0.2 / 3
    assert torch.allclose(raw_pixel_embeddings(RawImages(images)), expected)


def test_small_images_are_kept_pixel_by_pixel():
    images = random_images(5, 4, 4, 3)
    channels_first = torch.from_numpy(images).permute(0, 3, 1, 2).reshape(5, -1) / 127.5
    found = raw_pixel_embeddings(RawImages(images))
    assert torch.allclose(found, channels_first - channels_first.mean(dim=0), atol=1e-6)


def test_large_images_are_averaged_down():
    images = random_images(4, 64, 64, 1)
    small = images.reshape(4, 32, 2, 32, 2).mean(axis=(2, 4)).reshape(4, -1) / 127.5
    expected = torch.from_numpy(small - small.mean(axis=0)).float()
    assert torch.allclose(raw_pixel_embeddings(RawImages(images)), expected, atol=1e-5)


def test_the_centred_square_counts():
    images = random_images(4, 8, 12, 3)
    square = raw_pixel_embeddings(RawImages(images[:, :, 2:10]))
    assert torch.equal(raw_pixel_embeddings(RawImages(images)), square)


def test_jpegs_of_several_shapes_give_embeddings_of_one_size(prepared):
    catalogue = photo_catalogue()
    jpeg = prepared(catalogue, PreprocessConfig(encoding="jpeg", image_size=64, jpeg_quality=100)).split(
        "test"
    )
    found = raw_pixel_embeddings(jpeg.images)
    assert found.shape == (len(jpeg.labels), 3 * 32 * 32)
    raw = prepared(catalogue, PreprocessConfig(image_size=64)).split("test")
    assert (found - raw_pixel_embeddings(raw.images)).abs().mean() < 0.02  # of -1 to 1: the same squares
