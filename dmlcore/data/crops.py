"""Random crops of stored images, drawn for a batch at once.

Shapes: B images; a box is (top, left, height, width) in pixels of a stored image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dmlcore.data.images import Indices

TRIES = 10  # crops drawn until one lies inside the image
DRAWS = 2 * TRIES + 3  # numbers an image: area and ratio of each crop, top, left, mirror


@dataclass(frozen=True)
class RandomCrop:
    """A crop of random area and shape, resized to the network's input ("Inception's")."""

    scale: tuple[float, float]
    """Share of the image's area, from and to."""
    ratio: tuple[float, float]
    """Width to height, from and to; its logarithm is drawn uniformly."""


def random_boxes(draws: npt.NDArray[np.float64], sizes: Indices, crop: RandomCrop) -> Indices:
    """The first of ten drawn crops that lies inside its image; else the largest centre crop of an allowed ratio.

    Args:
        draws: [B, 23], uniform in 0..1; the last column is not used.
        sizes: [B, 2], heights and widths.
        crop: bounds of the crops.

    Returns:
        Boxes, [B, 4].

    Reference: Szegedy et al., "Going deeper with convolutions", 2015, section 6; torchvision's RandomResizedCrop.
    """
    low, high = np.log(crop.ratio)
    ratio = np.exp(low + (high - low) * draws[:, TRIES : 2 * TRIES])
    area = sizes.prod(axis=1)[:, None] * (crop.scale[0] + (crop.scale[1] - crop.scale[0]) * draws[:, :TRIES])
    sides = np.rint(np.sqrt(np.stack([area / ratio, area * ratio], axis=2))).astype(np.int64)  # [B, tries, 2]
    fits = ((sides > 0) & (sides <= sizes[:, None])).all(axis=2)
    drawn = sides[np.arange(len(sides)), fits.argmax(axis=1)]
    corner = (draws[:, 2 * TRIES : 2 * TRIES + 2] * (sizes - drawn + 1)).astype(np.int64)
    whole = _largest(sizes, crop.ratio)
    inside = fits.any(axis=1)[:, None]
    return np.hstack([np.where(inside, corner, (sizes - whole) // 2), np.where(inside, drawn, whole)])


def _largest(sizes: Indices, ratio: tuple[float, float]) -> Indices:
    """Sides [B, 2] of the largest crop of each image whose width to height is within `ratio`."""
    height, width = sizes.T
    sides = np.stack(
        [np.minimum(height, np.rint(width / ratio[0])), np.minimum(width, np.rint(height * ratio[1]))]
    )
    return np.maximum(sides.T, 1).astype(np.int64)
