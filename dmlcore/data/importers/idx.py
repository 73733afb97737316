"""The idx format of MNIST and Fashion-MNIST: one array of bytes behind its shape."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dmlcore.data.errors import DataError

UINT8 = 8
"""The third byte of the header: the type of the values."""


def read_idx(data: bytes, *, name: str) -> npt.NDArray[np.uint8]:
    """The array of an idx file.

    Args:
        data: two zero bytes, the type, the number of dimensions, each length as 4 bytes (big-endian), the values.
        name: of the file, for errors.

    Raises:
        DataError: another header, another type than bytes, or a length that does not fit the shape.

    Reference: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998, the file format.
    """
    start = 4 + 4 * data[3] if len(data) > 3 and data[:3] == bytes((0, 0, UINT8)) else 0
    if not 4 < start <= len(data):
        raise DataError(
            f"{name}: must be an idx file of bytes, got the header {data[:4]!r}; get the archive again"
        )
    shape = tuple(np.frombuffer(data, ">u4", offset=4, count=data[3]).tolist())
    if len(data) - start != math.prod(shape):
        raise DataError(
            f"{name}: shape {shape} needs {math.prod(shape)} bytes, got {len(data) - start}; truncated"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
