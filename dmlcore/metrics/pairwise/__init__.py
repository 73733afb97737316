"""The engine of evaluate(): all pairs of embeddings, tile by tile, exactly and in bounded memory.

A sweep (`sweep.Sweep`) makes a few passes over the tiles of the similarity matrix; kernels are its compiled loops.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile `function` with numba: without the GIL, cached on disk, division by zero as in numpy.

    The cache of a function notices a change of its own file alone, not of the files of the functions that it calls:
    after an edit of `compress.py` or of `order_key`, delete `__pycache__` of this folder.
    """
    return cast(Function, njit(nogil=True, cache=True, error_model="numpy")(function))
