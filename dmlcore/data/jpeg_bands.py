"""Cutting the MCU rows of a JPEG file that a crop needs, without decoding: what is left out costs no time.

It needs a restart marker after each MCU row, where decoding starts afresh; a file without them is decoded whole.
An MCU (minimum coded unit) is 8 x 8 or, with halved chroma, 16 x 16 pixels.
Reference: ITU-T T.81, annexes B.2 (markers) and F.1.1.5.2 (restart).
"""

from typing import Any

import numpy as np
from numba import njit

HEIGHT, WIDTH, MCU_ROWS, SOF, SCAN = range(5)
CONTEXT = 2  # rows above and below from which the decoder smooths halved chroma
Kernel = Any  # numba's dispatchers and what they take carry no static types
compiled = njit(nogil=True, cache=True, error_model="numpy")


@compiled
def read_header(data: Kernel) -> Kernel:
    """Of a JPEG file [bytes]: height, width, rows of an MCU (0: rows cannot be cut), where frame header and scan begin.

    All 0 where it is no JPEG file.
    """
    header = np.zeros(5, np.int64)
    at, interval, across, frame = 2, 0, 0, 0
    while at + 10 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], two_bytes(data, at + 2)
        if 0xC0 <= marker <= 0xC2:
            frame, header[SOF] = marker, at
            header[HEIGHT], header[WIDTH] = two_bytes(data, at + 5), two_bytes(data, at + 7)
            header[MCU_ROWS], across = mcu_size(data, at, length, header[WIDTH])
        elif marker == 0xDD:
            interval = two_bytes(data, at + 4)
        elif marker == 0xDA:
            header[SCAN] = at + 2 + length
            whole = data[at + 4] == data[header[SOF] + 9] > 1  # all components, interleaved
            if frame == 0xC2 or interval != across or not whole:
                header[MCU_ROWS] = 0
            return header
        at += 2 + length
    return np.zeros(5, np.int64)


@compiled
def two_bytes(data: Kernel, at: Kernel) -> Kernel:
    return np.int64(data[at]) << 8 | np.int64(data[at + 1])


@compiled
def mcu_size(data: Kernel, frame: Kernel, length: Kernel, width: Kernel) -> Kernel:
    """Pixel rows of an MCU; MCUs side by side."""
    across, down = 1, 1
    for at in range(frame + 11, frame + length + 1, 3):
        across, down = max(across, data[at] >> 4), max(down, data[at] & 15)
    return 8 * down, -(-width // (8 * across))


@compiled
def read_sizes(data: Kernel, offsets: Kernel, lengths: Kernel) -> Kernel:
    """Heights and widths [B, 2] of the files at `offsets` in `data`."""
    sizes = np.empty((len(offsets), 2), np.int64)
    for i in range(len(offsets)):
        header = read_header(data[offsets[i] : offsets[i] + lengths[i]])
        sizes[i] = header[HEIGHT], header[WIDTH]
    return sizes


@compiled
def cut_rows(data: Kernel, header: Kernel, first: Kernel, last: Kernel) -> Kernel:
    """A JPEG file of the MCU rows that hold pixel rows first..last-1 and their context; the pixel row it starts with.

    The file is empty where a restart marker is missing.
    """
    rows, height = header[MCU_ROWS], header[HEIGHT]
    start = max(first - CONTEXT, 0) // rows
    end = -(-min(last + CONTEXT, height) // rows)
    band = np.empty(len(data) + 2, np.uint8)
    at = filled = header[SCAN]
    band[:filled] = data[:filled]
    left = min(end * rows, height) - start * rows
    band[header[SOF] + 5], band[header[SOF] + 6] = left >> 8, left & 255
    for row in range(end):
        begin, at = at, next_marker(data, at)
        if at < 0:
            return band[:0], 0
        if row >= start:
            band[filled : filled + at - begin] = data[begin:at]
            filled += at - begin + 2
            band[filled - 2], band[filled - 1] = 0xFF, 0xD0 + (row - start) % 8
        at += 2
    band[filled - 1] = 0xD9
    return band[:filled], start * rows


@compiled
def next_marker(data: Kernel, at: Kernel) -> Kernel:
    """Where the next restart or end marker begins; -1: there is none."""
    for i in range(at, len(data) - 1):
        if data[i] == 0xFF and 0xD0 <= data[i + 1] <= 0xD9:
            return i
    return -1
