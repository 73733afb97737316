"""Stored pixels -> network input, and its augmentation: one batched affine map.

Shapes: B images of H x W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

Statistic = float | Sequence[float]


def to_float(
    images: npt.NDArray[np.uint8] | Tensor, *, mean: Statistic = 0.5, std: Statistic = 0.5
) -> Tensor:
    """Scale pixels to 0..1, subtract `mean`, divide by `std`.

    Args:
        images: [B, H, W, C], uint8.
        mean: one number, or one per channel.
        std: likewise.

    Returns:
        [B, C, H, W], float32, contiguous.
    """
    # A copy: torch must not wrap the read-only memory map.
    pixels = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
    batch = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    centre, spread = (
        _per_channel(value if isinstance(value, int | float) else tuple(value), batch.device)
        for value in (mean, std)
    )
    # In place on the fresh float copy: three passes without three more batches in memory.
    return batch.div_(255.0).sub_(centre).div_(spread)


@cache
def _per_channel(value: float | tuple[float, ...], device: torch.device) -> Tensor:
    """Return [C or 1, 1, 1]; kept, since a transfer to a GPU would hold up every batch."""
    with torch.inference_mode(False):
        return torch.as_tensor(value, dtype=torch.float32, device=device).reshape(-1, 1, 1)


def without_waiting(values: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the CPU to `device`; from pinned memory, so that the CPU does not wait for a GPU's work."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def augmentation_draws(generator: np.random.Generator, num_images: int) -> npt.NDArray[np.float64]:
    """Draw the random numbers of a batch, [6, B] in -1..1.

    Always six per image, used or not: switching one transformation off must not change the draws of the others.
    """
    return generator.uniform(-1.0, 1.0, size=(6, num_images))


def augment(
    images: Tensor,
    *,
    draws: npt.NDArray[np.float64],
    rotation_degrees: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    translate: float = 0.0,
    horizontal_flip: bool = False,
) -> Tensor:
    """Apply one affine map per image; pixels from outside repeat the border.

    Args:
        images: [B, C, H, W], floating point.
        draws: [6, B], from `augmentation_draws`.
        rotation_degrees: angle drawn from -rotation_degrees to +rotation_degrees.
        scale: zoom drawn from 1 - scale to 1 + scale.
        shear: drawn from -shear to +shear.
        translate: largest shift along each axis, as a share of the side.
        horizontal_flip: mirror each image with probability 1/2.

    Returns:
        [B, C, H, W]; `images` itself if nothing changes.
    """
    # A mirror alone is exact: no resampling where nothing else is asked for.
    mirror = horizontal_flip & (draws[5] < 0.0)
    if not (rotation_degrees or scale or shear or translate):
        if not mirror.any():
            return images
        chosen = without_waiting(torch.from_numpy(mirror), images.device).reshape(-1, 1, 1, 1)
        return torch.where(chosen, images.flip(3), images)
    maps = _affine_maps(
        angle=np.deg2rad(rotation_degrees) * draws[0],
        zoom=1.0 + scale * draws[1],
        shear=shear * draws[2],
        shift=2.0 * translate * draws[3:5],  # The image is 2 wide in coordinates -1..1.
        flip=np.where(mirror, -1.0, 1.0),
        aspect=images.shape[3] / images.shape[2],
    )
    theta = without_waiting(torch.from_numpy(maps).to(images.dtype), images.device)
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _affine_maps(
    *,
    angle: npt.NDArray[np.float64],
    zoom: npt.NDArray[np.float64],
    shear: npt.NDArray[np.float64],
    shift: npt.NDArray[np.float64],
    flip: npt.NDArray[np.float64],
    aspect: float,
) -> npt.NDArray[np.float64]:
    """Return the output -> input maps [B, 2, 3] of x -> zoom rotation shear flip x + shift, in coordinates -1..1.

    `aspect` (width / height) keeps a rotation a rotation if the image is not square.
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    rows = [[cosine * flip, (cosine * shear - sine) / aspect], [sine * flip * aspect, sine * shear + cosine]]
    forward = np.moveaxis(np.array(rows) * zoom, -1, 0)
    inverse = np.linalg.inv(forward)
    return np.concatenate([inverse, -inverse @ shift.T[:, :, None]], axis=2)
