"""How the kernels are compiled, and the key of one similarity in them.

Apart from all that needs no numba: a small set is evaluated without it.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

from dmlcore.metrics.pairwise.order_statistics import BITS_OF_ONE

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


@compiled
def order_key(bits: Any) -> Any:
    """As order_keys, of the int32 bits of one float32."""
    bits = min(bits, np.int32(BITS_OF_ONE))
    return np.int64(bits ^ ((bits >> 31) & 0x7FFFFFFF)) + 2147483648
