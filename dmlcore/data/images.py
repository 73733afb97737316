"""The stored images of a split behind one interface, whatever their encoding.

Shapes: N images of H x W pixels, C channels; B of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torchvision.io import ImageReadMode

from dmlcore.core.errors import DataError
from dmlcore.data.jpeg_crop import SEGMENTS, cut_box, read_header, read_sizes

Pixels = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]
Box = tuple[int, int, int, int]  # top, left, height, width

# For PIL's Image.save. Restart markers let `read_box` decode only what it is asked for; they cost 4 % of the bytes,
# the optimised code tables save 7 %.
JPEG_OPTIONS: dict[str, Any] = {
    "format": "JPEG",
    "quality": 95,
    "subsampling": "4:2:0",
    "optimize": True,
    "restart_marker_blocks": 1,
}


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


@dataclass(frozen=True)
class JpegImages:
    """RGB images in one memory map of JPEG files, one after another: image i has `lengths[i]` bytes at `offsets[i]`."""

    data: Pixels
    offsets: Indices
    lengths: Indices

    @property
    def channels(self) -> int:
        return 3

    def __len__(self) -> int:
        return len(self.offsets)

    def encoded(self, index: int) -> Pixels:
        """Return the JPEG file of one image, as bytes."""
        start = self.offsets[index]
        return np.array(self.data[start : start + self.lengths[index]])

    def read(self, index: int) -> Pixels:
        return _decode(self.encoded(index), index)

    def read_box(self, index: int, box: Box) -> Pixels:
        """Return the same bits as a crop of `read`, but decode only the segments that the crop needs."""
        top, left, height, width = box
        file = self.encoded(index)
        header = read_header(file)
        if header[SEGMENTS]:
            part, row, column = cut_box(file, header, top, left, top + height, left + width)
            if len(part):  # Empty where a restart marker is missing: then the full file is decoded.
                file, top, left = part, top - row, left - column
        return _decode(file, index)[top : top + height, left : left + width]

    def sizes(self, indices: Indices) -> Indices:
        sizes = read_sizes(np.asarray(self.data), self.offsets[indices], self.lengths[indices])
        if not sizes.all():
            raise _broken(int(indices[sizes.min(axis=1).argmin()]))
        return sizes


def _decode(file: Pixels, index: int) -> Pixels:
    try:
        # The operator itself: torchvision.io.decode_jpeg warns that it moves to torchcodec, with the same decoder.
        decoded = torch.ops.image.decode_jpeg(torch.from_numpy(file), ImageReadMode.RGB.value, False)
    except RuntimeError as error:
        raise _broken(index) from error
    return decoded.permute(1, 2, 0).numpy()


def _broken(index: int) -> DataError:
    return DataError(f"image {index} of the split is not a readable JPEG file; prepare the data set again")
