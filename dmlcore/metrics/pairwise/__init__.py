"""The engine of evaluate(): all pairs of embeddings, tile by tile, exactly and in bounded memory.

A sweep (`sweep.Sweep`) makes a few passes over the tiles of the similarity matrix; kernels are its compiled loops.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile `function` with numba: without the GIL, cached on disk, division by zero as in numpy.

    The cache of a function notices a change of its own file alone, not of the files of the functions that it calls:
    after an edit of `compress.py` or of `order_key`, delete `__pycache__` of this folder.

    Where no folder for the cache can be written, it is compiled anew in each process, and not cached in a temporary
    folder: what numba finds in its cache it unpickles, and others write there too.
    """
    try:
        return cast(Function, njit(nogil=True, cache=True, error_model="numpy")(function))
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
    _warn_of_no_cache()
    return cast(Function, njit(nogil=True, error_model="numpy")(function))


@cache
def _warn_of_no_cache() -> None:
    warnings.warn(
        "no folder for numba's cache can be written, so each process compiles for some 20 s; set NUMBA_CACHE_DIR to a "
        "folder of your own",
        RuntimeWarning,
        stacklevel=3,
    )
