"""What an object holds, part by part: its attributes, buffers, and the variables that its functions close over."""

from __future__ import annotations

import enum
import functools
import logging
import random
import re
from collections import OrderedDict, deque
from collections.abc import Iterator
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PLAIN = (bool, int, float, str, type(None))
"""Written to JSON as they are."""
SEQUENCES: dict[str, type] = {
    kind.__name__: kind for kind in (list, tuple, set, frozenset, deque, dict, OrderedDict)
}
MAPPINGS = (dict, OrderedDict)
GENERATORS = (torch.Generator, np.random.Generator, random.Random)
FIXED = (
    *(type, ModuleType, BuiltinFunctionType, enum.Enum, PurePath, re.Pattern, range, slice, bytes),
    *(np.dtype, np.ufunc, torch.dtype, torch.device, torch.layout, torch.memory_format, logging.Logger),
)
"""Never change, so that only another one in their place would be news."""
MISSING = object()
Node = Any
"""A value as JSON: a plain value, or an object with one key, which says how it was written."""
OF_MODULES = frozenset(vars(nn.Module())) - {"_buffers", "_modules"}
HEAP_TYPE = 1 << 9
"""Flag of classes written in Python: others may hold what no attribute shows."""


class HeldStateError(ValueError):
    """A loss holds what a checkpoint cannot store."""


def display_name(path: str) -> str:
    """Return the name that a user knows: `base.loss.queue_idx`."""
    return path.replace("._modules", "").replace("._buffers", "").lstrip(".") or "the loss"


def attributes(value: Any) -> dict[str, Any]:
    """Return what an object holds by name; for a module also `_buffers` and `_modules`, but not its parameters."""
    if isinstance(value, FunctionType):
        return dict(_closure(value))
    if isinstance(value, MethodType):
        return {"__self__": value.__self__}
    if isinstance(value, functools.partial):
        return {"func": value.func, "args": value.args, "keywords": value.keywords}
    own = {name: part for name, part in vars(value).items() if not _left_out(value, name)}
    return _class_attributes(type(value)) | own if not has_extra_state(value) else own


def is_object(value: Any) -> bool:
    """Tell whether the attributes of a value are all that it holds."""
    if isinstance(value, (FunctionType, MethodType, functools.partial)):
        return True
    bases = [kind for kind in type(value).__mro__ if kind is not object]
    return hasattr(value, "__dict__") and all(
        kind.__flags__ & HEAP_TYPE and not vars(kind).get("__slots__") for kind in bases
    )


def has_extra_state(value: Any) -> bool:
    """Tell whether a module's class defines `get_extra_state`."""
    return isinstance(value, nn.Module) and type(value).get_extra_state is not nn.Module.get_extra_state


def set_attribute(value: Any, name: str, part: Any) -> None:
    """Set an attribute, or a variable that a function closes over."""
    if isinstance(value, FunctionType):
        cells = dict(zip(value.__code__.co_freevars, value.__closure__ or (), strict=True))
        cells[name].cell_contents = part
    elif not isinstance(value, (MethodType, functools.partial)):
        # Not setattr: a module would take a tensor that replaces a buffer for something else.
        vars(value)[name] = part


def _left_out(value: Any, name: str) -> bool:
    if not isinstance(value, nn.Module):
        return False
    return name in OF_MODULES or (has_extra_state(value) and name not in ("_buffers", "_modules"))


def _class_attributes(kind: type) -> dict[str, Any]:
    """Return the lists, tensors and the like of a class: instances change them in place."""
    mutable = (list, dict, set, deque, Tensor, np.ndarray, *GENERATORS)
    found: dict[str, Any] = {}
    for parent in kind.__mro__:
        if parent in (nn.Module, object):
            break
        for name, part in vars(parent).items():
            if isinstance(part, mutable) and not name.startswith("__"):
                found.setdefault(name, part)
    return found


def _closure(function: FunctionType) -> Iterator[tuple[str, Any]]:
    if function.__module__ and function.__module__.startswith(("torch.", "numpy.")):
        return
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
