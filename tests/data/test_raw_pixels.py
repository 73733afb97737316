import numpy as np
import torch

from dmlcore.data.raw_pixels import raw_pixel_embeddings


def test_pixels_less_their_mean():
    images = np.array([[[[0]], [[255]]], [[[255]], [[255]]]], np.uint8)  # [2, 2, 1, 1]
    # to_float gives (-1, 1) and (1, 1), mean (0, 1)
    assert torch.allclose(raw_pixel_embeddings(images), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))


def test_blocks_change_nothing():
    images = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), np.uint8)
    assert torch.equal(raw_pixel_embeddings(images, block=3), raw_pixel_embeddings(images))


def test_large_images_are_averaged_down():
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 1), np.uint8)
    small = images.reshape(4, 32, 2, 32, 2).mean(axis=(2, 4)).reshape(4, -1) / 127.5
    expected = torch.from_numpy(small - small.mean(axis=0)).float()
    assert torch.allclose(raw_pixel_embeddings(images), expected, atol=1e-5)
