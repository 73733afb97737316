"""The stored images of a split behind one face, whatever their encoding.

Shapes: N images of H x W pixels, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torchvision.io import ImageReadMode, decode_jpeg

Pixels = npt.NDArray[np.uint8]


class Images(Protocol):
    """N images; reading one costs its decoding, nothing is kept."""

    @property
    def channels(self) -> int:
        """C, of every image."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Pixels:
        """One image, [H, W, C], uint8."""


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


@dataclass(frozen=True)
class JpegImages:
    """RGB images in one memory map of JPEG files, one after another: image i has `lengths[i]` bytes at `offsets[i]`."""

    data: Pixels
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    @property
    def channels(self) -> int:
        return 3

    def __len__(self) -> int:
        return len(self.offsets)

    def encoded(self, index: int) -> Pixels:
        """The JPEG file of one image, as bytes."""
        start = self.offsets[index]
        return np.array(self.data[start : start + self.lengths[index]])

    def read(self, index: int) -> Pixels:
        decoded = decode_jpeg(torch.from_numpy(self.encoded(index)), mode=ImageReadMode.RGB)
        return decoded.permute(1, 2, 0).numpy()
