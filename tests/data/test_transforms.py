import math

import numpy as np
import pytest
import torch

from dmlcore.core.seeding import keyed_generator
from dmlcore.data.transforms import augment, augmentation_draws, to_float


def batch(size=9, count=4, channels=2):
    return torch.from_numpy(np.random.default_rng(0).normal(size=(count, channels, size, size))).float()


def moved(images, **settings):
    return augment(images, draws=augmentation_draws(keyed_generator(0, "test"), len(images)), **settings)


def test_to_float_moves_channels_and_scales():
    images = np.array([[[[0, 255], [51, 102]]]], np.uint8)  # [1, 1, 2, 2]
    expected = [[[[-1.0, -0.6]], [[1.0, -0.2]]]]  # 51 / 255 = 0.2 -> -0.6, 102 / 255 = 0.4 -> -0.2
    assert torch.allclose(to_float(images), torch.tensor(expected))
    assert to_float(images).is_contiguous()


def test_to_float_takes_one_statistic_a_channel():
    images = np.full((2, 3, 3, 2), 255, np.uint8)
    floats = to_float(images, mean=(0.0, 0.5), std=(1.0, 0.25))
    assert floats[:, 0].unique().tolist() == [1.0]
    assert floats[:, 1].unique().tolist() == [2.0]  # (1 - 0.5) / 0.25


def test_to_float_takes_memory_maps_and_tensors(prepared, noise):
    images = prepared(noise).split("test").images.array
    assert torch.equal(to_float(images), to_float(torch.from_numpy(images.copy())))
    assert to_float(images).shape == (len(images), 3, 8, 8)


def test_nothing_asked_nothing_changed():
    images = batch()
    assert moved(images) is images


def test_the_generator_alone_decides():
    settings = {
        "rotation_degrees": 30.0,
        "scale": 0.2,
        "shear": 0.2,
        "translate": 0.1,
        "horizontal_flip": True,
    }
    images = batch()
    assert torch.equal(moved(images, **settings), moved(images, **settings))
    other = augment(images, draws=augmentation_draws(keyed_generator(1, "test"), len(images)), **settings)
    assert not torch.equal(moved(images, **settings), other)


def test_a_flip_mirrors_some_images_exactly():
    images = batch(count=40)
    flipped = moved(images, horizontal_flip=True)
    kept = [torch.equal(one, other) for one, other in zip(images, flipped, strict=True)]
    mirrored = [torch.equal(one.flip(2), other) for one, other in zip(images, flipped, strict=True)]
    assert all(one != other for one, other in zip(kept, mirrored, strict=True))
    assert 8 < sum(mirrored) < 32


def test_a_flip_beside_other_maps_mirrors_the_same_images():
    images = batch(count=40)
    alone, together = (moved(images, horizontal_flip=True, scale=scale) for scale in (0.0, 1e-9))
    assert torch.allclose(alone, together, atol=1e-4)


def angles_of(images):
    """Direction from the centre to the centre of mass, degrees."""
    axis = torch.arange(images.shape[-1]) - (images.shape[-1] - 1) / 2
    weight = images.sum(dim=(1, 2, 3))
    x, y = (images * axis).sum(dim=(1, 2, 3)) / weight, (images * axis[:, None]).sum(dim=(1, 2, 3)) / weight
    return torch.rad2deg(torch.atan2(y, x)), torch.hypot(x, y)


def dot(count=64, size=65):
    images = torch.zeros(count, 1, size, size)
    images[:, :, size // 2, size // 2 + 16] = 1.0  # 16 pixels right of the centre
    return images


def test_rotation_turns_by_up_to_the_angle():
    angle, radius = angles_of(moved(dot(), rotation_degrees=40.0))
    assert 30 < angle.abs().max() <= 41
    assert torch.allclose(radius, torch.full_like(radius, 16.0), atol=0.7)


def test_scale_zooms_by_up_to_the_share():
    angle, radius = angles_of(moved(dot(), scale=0.25))
    assert angle.abs().max() < 1
    assert 11.3 < radius.min() < 13.5  # 16 x 0.75 = 12
    assert 18.5 < radius.max() < 20.7  # 16 x 1.25 = 20


def test_translate_shifts_by_up_to_the_share_of_the_side():
    images = torch.zeros(64, 1, 64, 64)
    images[:, :, 32, 32] = 1.0
    brightest = [(image[0] == image.max()).nonzero()[0] for image in moved(images, translate=0.125)]
    shifts = torch.stack(brightest) - 32
    assert 6 <= shifts.abs().max() <= 9  # 64 x 0.125 = 8
    assert shifts[:, 0].unique().numel() > 5
    assert shifts[:, 1].unique().numel() > 5


def test_shear_moves_rows_against_each_other():
    images = torch.zeros(32, 1, 65, 65)
    images[:, :, 48, 32] = 1.0  # 16 below the centre
    columns = [(image[0] == image.max()).nonzero()[0, 1] - 32 for image in moved(images, shear=0.5)]
    assert 6 <= max(map(abs, columns)) <= 9  # 16 x 0.5 = 8


def test_what_comes_in_repeats_the_border():
    images = torch.full((8, 1, 16, 16), 0.25)
    assert torch.allclose(moved(images, translate=0.5, rotation_degrees=90.0), images, atol=1e-6)


def test_a_quarter_turn_of_a_wide_image_keeps_its_shape():
    # A bar of 3 x 21 in a 41 x 81 image: turned, it is as long as before, not stretched by the aspect.
    images = torch.zeros(200, 1, 41, 81)
    images[:, :, 19:22, 30:51] = 1.0
    ink = moved(images, rotation_degrees=90.0).sum(dim=(1, 2, 3))
    assert math.isclose(ink.min().item(), 63, rel_tol=0.05)
    assert math.isclose(ink.max().item(), 63, rel_tol=0.05)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_type_is_kept(dtype):
    assert moved(batch().to(dtype), rotation_degrees=10.0).dtype == dtype
