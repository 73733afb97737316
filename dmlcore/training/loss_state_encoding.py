"""Encode the state of a loss as JSON values and tensors, without pickle.

The object graph is walked from the module: attributes, buffers, containers, and the closure variables of functions.
Every value becomes a node: a JSON scalar, or an object with one key, the type, which tells the decoder what to restore.
"""

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

SCALARS = (bool, int, float, str, type(None))
"""Encoded as JSON scalars."""
MAPPINGS = (dict, OrderedDict)
CONTAINERS: dict[str, type] = {
    kind.__name__: kind for kind in (list, tuple, set, frozenset, deque, *MAPPINGS)
}
GENERATORS = (torch.Generator, np.random.Generator, random.Random)
IMMUTABLE = (
    *(type, ModuleType, BuiltinFunctionType, enum.Enum, PurePath, re.Pattern, range, slice, bytes),
    *(np.dtype, np.ufunc, torch.dtype, torch.device, torch.layout, torch.memory_format, logging.Logger),
)
"""Not encoded: the constructor creates them again. The encoder only verifies that they have not been replaced."""
MISSING = object()
Node = Any
"""A JSON scalar, or `{type: content}`."""
MODULE_INTERNALS = frozenset(vars(nn.Module())) - {"_buffers", "_modules"}
HEAP_TYPE = 1 << 9
"""Py_TPFLAGS_HEAPTYPE, set for classes defined in Python. Instances of others may have state outside `__dict__`."""


class LossStateError(ValueError):
    """The state of a loss cannot be stored, or does not match the loss."""


def display_name(path: str) -> str:
    """Return the attribute as a user would write it: `base.loss.queue_idx`."""
    return path.replace("._modules", "").replace("._buffers", "").lstrip(".") or "the loss"


def attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an object; for a module also `_buffers` and `_modules`, but not its parameters."""
    if isinstance(value, FunctionType):
        return dict(_closure_variables(value))
    if isinstance(value, MethodType):
        return {"__self__": value.__self__}
    if isinstance(value, functools.partial):
        return {"func": value.func, "args": value.args, "keywords": value.keywords}
    own = {name: part for name, part in vars(value).items() if not _is_skipped(value, name)}
    return own if has_extra_state(value) else _mutable_class_attributes(type(value)) | own


def has_visible_state(value: Any) -> bool:
    """Tell whether `attributes` returns all state of a value: no `__slots__`, no base class written in C."""
    if isinstance(value, (FunctionType, MethodType, functools.partial)):
        return True
    bases = [kind for kind in type(value).__mro__ if kind is not object]
    return hasattr(value, "__dict__") and all(
        kind.__flags__ & HEAP_TYPE and not vars(kind).get("__slots__") for kind in bases
    )


def has_extra_state(value: Any) -> bool:
    """Tell whether the class of a module overrides `get_extra_state`."""
    return isinstance(value, nn.Module) and type(value).get_extra_state is not nn.Module.get_extra_state


def children(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (name, key or index; value) of all that a value contains."""
    if type(value) in MAPPINGS:
        yield from value.items()
    elif type(value) in CONTAINERS.values():
        yield from enumerate(value)
    elif not isinstance(value, (Tensor, np.ndarray, np.generic, *IMMUTABLE, *GENERATORS)):
        yield from attributes(value).items() if has_visible_state(value) else ()


def _is_skipped(value: Any, name: str) -> bool:
    if not isinstance(value, nn.Module):
        return False
    return name in MODULE_INTERNALS or (has_extra_state(value) and name not in ("_buffers", "_modules"))


def _mutable_class_attributes(kind: type) -> dict[str, Any]:
    """Return lists, tensors and the like that are attributes of a class: its methods may change them in place."""
    mutable = (list, dict, set, deque, Tensor, np.ndarray, *GENERATORS)
    found: dict[str, Any] = {}
    for parent in kind.__mro__:
        if parent in (nn.Module, object):
            break
        for name, part in vars(parent).items():
            if isinstance(part, mutable) and not name.startswith("__"):
                found.setdefault(name, part)
    return found


def _closure_variables(function: FunctionType) -> Iterator[tuple[str, Any]]:
    if function.__module__ and function.__module__.startswith(("torch.", "numpy.")):
        return
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue


class Encoder:
    """Encodes the state of one module.

    Args:
        initial: path -> object, as the constructor left them.
        module: the loss.
    """

    def __init__(self, initial: dict[str, Any], module: nn.Module) -> None:
        self.initial = initial
        self.tensors: dict[str, Tensor] = {}
        self.paths: dict[int, str] = {}
        self.visited: list[Any] = []  # keeps temporary objects alive, whose ids would be reused otherwise
        self.storages = {p.untyped_storage().data_ptr(): "a parameter" for p in module.parameters()}
        self.parameters = {id(parameter) for parameter in module.parameters()}

    def encode(self, path: str, value: Any) -> Node:
        """Return the node of a value; an object that was encoded before becomes a reference to it.

        Raises:
            LossStateError: names the attribute that cannot be encoded.
        """
        if type(value) in SCALARS:
            return value
        if id(value) in self.paths:
            return {"same": self.paths[id(value)]}
        self.paths[id(value)] = path
        self.visited.append(value)
        if isinstance(value, IMMUTABLE) or id(value) in self.parameters:
            return self._in_place(path, value, {"fixed": type(value).__name__})
        if isinstance(value, GENERATORS):
            return self._in_place(path, value, self._random_state(path, value))
        if isinstance(value, (Tensor, np.ndarray, np.generic)):
            return self._array(path, value)
        if type(value) in CONTAINERS.values():
            return {type(value).__name__: self._items(path, value)}
        if not has_visible_state(value):
            raise _not_storable(path, f"is a {type(value).__name__}, which cannot be stored as data")
        return self._in_place(path, value, {"object": self._object(path, value)})

    def _in_place(self, path: str, value: Any, node: Node) -> Node:
        """Return the node of an object that is restored in place: the constructor must create it at this path."""
        initial = self.initial.get(path, MISSING)
        if initial is not value and not (isinstance(value, MethodType) and initial == value):
            raise _not_storable(path, f"is a {type(value).__name__} that was created after the constructor")
        return node

    def _object(self, path: str, value: Any) -> list[Node]:
        nodes = {name: self.encode(f"{path}.{name}", part) for name, part in attributes(value).items()}
        if not has_extra_state(value):
            return [nodes]
        return [nodes, self.encode(f"{path}.get_extra_state()", value.get_extra_state())]

    def _items(self, path: str, value: Any) -> list[Node]:
        if isinstance(value, (set, frozenset)) and any(type(item) not in SCALARS for item in value):
            raise _not_storable(path, "is a set of other things than numbers and strings")
        if type(value) in MAPPINGS:
            if any(type(key) not in SCALARS for key in value):
                raise _not_storable(path, "is a dict whose keys are not numbers or strings")
            return [[key, self.encode(f"{path}.{key}", part)] for key, part in value.items()]
        items = [self.encode(f"{path}.{number}", part) for number, part in enumerate(value)]
        return [items, value.maxlen] if hasattr(value, "maxlen") else items

    def _random_state(self, path: str, value: Any) -> Node:
        if isinstance(value, random.Random):
            return {"random": value.getstate()}
        if isinstance(value, np.random.Generator):
            return {"numpy_random": self.encode(f"{path}.state", value.bit_generator.state)}
        return {"torch_random": self._add_tensor(value.get_state())}

    def _array(self, path: str, value: Any) -> Node:
        if isinstance(value, Tensor):
            self._check_tensor(path, value)
            return {"tensor": [self._add_tensor(value), value.is_cuda, value.stride()]}
        if value.dtype.kind not in "biuf":
            raise _not_storable(path, f"is an array of dtype {value.dtype}")
        key = self._add_tensor(torch.from_numpy(np.array(value, order="C")))
        return {"array": [key, isinstance(value, np.generic)]}

    def _check_tensor(self, path: str, value: Tensor) -> None:
        if value.requires_grad:
            raise _not_storable(path, "is a tensor that requires gradients: store it with .detach()")
        storage = value.untyped_storage() if value.layout == torch.strided else None
        if storage is None or storage.nbytes() < value.numel() * value.itemsize:
            raise _not_storable(path, "is a sparse or expanded tensor: store a dense one, with .clone()")
        memory = storage.data_ptr()
        if memory and (other := self.storages.setdefault(memory, path)) != path:
            raise _not_storable(path, f"shares its memory with {display_name(other)}: store it with .clone()")

    def _add_tensor(self, value: Tensor) -> str:
        key = str(len(self.tensors))
        self.tensors[key] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return key


def _not_storable(path: str, problem: str) -> LossStateError:
    return LossStateError(
        f"attribute `{display_name(path)}` of the loss {problem}. A trial with this loss could not resume from a "
        "checkpoint. Use tensors, numbers, strings and lists of them, or define `get_extra_state` and "
        "`set_extra_state`"
    )
