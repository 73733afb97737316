"""The stored images of a split behind one interface, whatever their encoding.

Shapes: N images of H x W pixels, C channels; B of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]
Box = tuple[int, int, int, int]  # top, left, height, width


class Images(Protocol):
    """N images; each read decodes anew, nothing is cached."""

    @property
    def channels(self) -> int:
        """Number of channels of every image."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Pixels:
        """Return one image, [H, W, C], uint8."""

    def read_box(self, index: int, box: Box) -> Pixels:
        """Return a crop of one image, [height, width, C], uint8, in writable memory."""

    def sizes(self, indices: Indices) -> Indices:
        """Return heights and widths, [B, 2], of the images at `indices` [B]."""


@dataclass(frozen=True)
class RawImages:
    """Plain pixels, all of one size: `array` [N, H, W, C], read from disk when touched."""

    array: Pixels

    @property
    def channels(self) -> int:
        return int(self.array.shape[3])

    def __len__(self) -> int:
        return len(self.array)

    def read(self, index: int) -> Pixels:
        return self.array[index]

    def read_box(self, index: int, box: Box) -> Pixels:
        top, left, height, width = box
        return np.array(self.array[index, top : top + height, left : left + width])

    def sizes(self, indices: Indices) -> Indices:
        return np.tile(np.array(self.array.shape[1:3], np.int64), (len(indices), 1))
