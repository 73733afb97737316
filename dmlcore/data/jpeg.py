"""JPEG images of a split, and crops of them: the part that a crop needs is cut out of the file before it is decoded.

A scan is a sequence of segments between restart markers; at each marker the decoder starts afresh. If each row of
MCUs is a whole number of segments, the segments that a box of pixels touches form a valid smaller JPEG file; any other
file is decoded in full.
An MCU (minimum coded unit) is 8 x 8 or, with halved chroma, 16 x 16 pixels.
Reference: ITU-T T.81, annexes B.2 (markers) and F.1.1.5.2 (restart).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, types
from numba.core.types import ExternalFunction

from dmlcore.core.errors import DataError
from dmlcore.data.decoders import DecodingError, decode
from dmlcore.data.images import Box, Indices, Pixels

# For PIL's Image.save. Restart markers let `read_box` decode only what it is asked for; they cost 4 % of the bytes,
# the optimised code tables save 7 %.
JPEG_OPTIONS: dict[str, Any] = {
    "format": "JPEG",
    "quality": 95,
    "subsampling": "4:2:0",
    "optimize": True,
    "restart_marker_blocks": 1,
}

HEIGHT, WIDTH, DOWN, ACROSS, SEGMENTS, SOF, SCAN = range(7)
CONTEXT = 2  # pixels around the box from which the decoder smooths halved chroma
Kernel = Any  # numba's dispatchers and what they take carry no static types
# Of the C library: a cut takes 15 microseconds with them and 60 with loops over bytes.
memchr: Any = ExternalFunction("memchr", types.uintp(types.uintp, types.int32, types.uintp))
memcpy: Any = ExternalFunction("memcpy", types.uintp(types.uintp, types.uintp, types.uintp))


def compiled(function: Any) -> Kernel:
    """Compile `function` with numba, cached on disk where a folder for it can be written."""
    try:
        return njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # no such folder: dmlcore.metrics.pairwise warns of it, once
        return njit(nogil=True, error_model="numpy")(function)


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
        return decode(file)
    except DecodingError as error:
        raise _broken(index) from error


def _broken(index: int) -> DataError:
    return DataError(f"image {index} of the split is not a readable JPEG file; prepare the data set again")


@compiled
def read_header(data: Kernel) -> Kernel:
    """Return of a JPEG file [bytes]: height, width; rows and columns of a segment in pixels, segments per row of MCUs
    (0: the file cannot be cut); offsets of frame header and scan. All 0 if it is not a JPEG file."""
    header = np.zeros(7, np.int64)
    at, interval, frame = 2, 0, 0
    while at + 10 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], two_bytes(data, at + 2)
        if 0xC0 <= marker <= 0xC2:
            frame, header[SOF] = marker, at
            header[HEIGHT], header[WIDTH] = two_bytes(data, at + 5), two_bytes(data, at + 7)
        elif marker == 0xDD:
            interval = two_bytes(data, at + 4)
        elif marker == 0xDA:
            header[SCAN] = at + 2 + length
            interleaved = data[at + 4] == data[header[SOF] + 9] > 1  # one scan with all components
            if frame != 0xC2 and interval and interleaved:  # 0xC2: progressive, several scans
                find_segments(data, header, interval)
            return header
        at += 2 + length
    return np.zeros(7, np.int64)


@compiled
def two_bytes(data: Kernel, at: Kernel) -> Kernel:
    return np.int64(data[at]) << 8 | np.int64(data[at + 1])


@compiled
def find_segments(data: Kernel, header: Kernel, interval: Kernel) -> Kernel:
    """Fill in rows and columns of a segment of `interval` MCUs, and the number of segments per row."""
    across, down = 1, 1
    first = header[SOF] + 11
    for at in range(first, first + 3 * data[header[SOF] + 9], 3):
        across, down = max(across, data[at] >> 4), max(down, data[at] & 15)
    header[DOWN], header[ACROSS] = 8 * down, 8 * across * interval
    units = -(-header[WIDTH] // (8 * across))
    if units % interval == 0:
        header[SEGMENTS] = units // interval


@compiled
def read_sizes(data: Kernel, offsets: Kernel, lengths: Kernel) -> Kernel:
    """Return heights and widths [B, 2] of the files at `offsets` in `data`."""
    sizes = np.empty((len(offsets), 2), np.int64)
    for i in range(len(offsets)):
        header = read_header(data[offsets[i] : offsets[i] + lengths[i]])
        sizes[i] = header[HEIGHT], header[WIDTH]
    return sizes


@compiled
def cut_box(data: Kernel, header: Kernel, top: Kernel, left: Kernel, bottom: Kernel, right: Kernel) -> Kernel:
    """Write a JPEG file of the segments that hold rows top..bottom-1 of columns left..right-1 and their context.

    Returns the file, empty where a restart marker is missing, and the row and column that it begins with.
    """
    first, last = segment_range(top, bottom, header[HEIGHT], header[DOWN])
    start, stop = segment_range(left, right, header[WIDTH], header[ACROSS])
    if (last - first) * header[DOWN] >= header[HEIGHT] and stop - start == header[SEGMENTS]:
        return data, 0, 0
    file = np.empty(len(data) + 2, np.uint8)  # at most all of the data and one more marker
    at = filled = header[SCAN]
    file[:filled] = data[:filled]
    write_length(file, header[SOF] + 5, first, last, header[DOWN], header[HEIGHT])
    write_length(file, header[SOF] + 7, start, stop, header[ACROSS], header[WIDTH])
    count = 0
    for segment in range((last - 1) * header[SEGMENTS] + stop):
        end = next_marker(data, at)
        if end < 0:
            return file[:0], 0, 0
        row, column = segment // header[SEGMENTS], segment % header[SEGMENTS]
        if row >= first and start <= column < stop:
            memcpy(file.ctypes.data + filled, data.ctypes.data + at, end - at)
            filled += end - at + 2
            file[filled - 2], file[filled - 1] = 0xFF, 0xD0 + count % 8  # markers number themselves modulo 8
            count += 1
        at = end + 2
    file[filled - 1] = 0xD9  # the last restart marker becomes the end of the image
    return file[:filled], first * header[DOWN], start * header[ACROSS]


@compiled
def segment_range(begin: Kernel, end: Kernel, side: Kernel, step: Kernel) -> Kernel:
    """Return first and last + 1 of the segments of `step` pixels that hold begin..end-1 and its context."""
    return max(begin - CONTEXT, 0) // step, -(-min(end + CONTEXT, side) // step)


@compiled
def write_length(file: Kernel, at: Kernel, first: Kernel, last: Kernel, step: Kernel, side: Kernel) -> Kernel:
    """Write the height or width of segments first..last-1, cut at the image's side, into the frame header."""
    pixels = min(last * step, side) - first * step
    file[at], file[at + 1] = pixels >> 8, pixels & 255


@compiled
def next_marker(data: Kernel, at: Kernel) -> Kernel:
    """Return the offset of the next restart or end marker; -1: another marker, or the data ends."""
    start = data.ctypes.data
    while at < len(data) - 1:
        found = memchr(start + at, 0xFF, len(data) - 1 - at)
        if not found:
            break
        at = np.int64(found - start)
        if data[at + 1]:  # a data byte 0xFF is followed by 0, so this is a marker
            return at if 0xD0 <= data[at + 1] <= 0xD9 else -1
        at += 2
    return -1
