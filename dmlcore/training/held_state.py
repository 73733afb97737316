"""What the modules of a loss hold outside their parameters: buffers, and attributes such as the position of a queue.

A loss may keep anything on its object. Data is written as JSON and tensors, and put back into the object that a resumed
trial builds anew; what cannot be written down is refused by the name of its attribute. Nothing is pickled.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dmlcore.training.held_parts import (
    FIXED,
    GENERATORS,
    MAPPINGS,
    MISSING,
    PLAIN,
    SEQUENCES,
    HeldStateError,
    Node,
    attributes,
    display_name,
    has_extra_state,
    is_object,
)
from dmlcore.training.held_reader import Reader


class HeldState:
    """What a module holds outside its parameters.

    Args:
        module: as it was built, before its first batch: a resumed trial finds these objects again.

    What lies in the globals of a file is not seen. A class with `get_extra_state` and `set_extra_state` says itself
    what its attributes need; what it returns must be data.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.built: dict[str, Any] = {}
        self._note("", module, set())

    def save(self) -> tuple[Node, dict[str, Tensor]]:
        """Return JSON values, and the tensors that they name.

        Raises:
            HeldStateError: names the attribute that cannot be stored.
        """
        writer = _Writer(self.built, self.module)
        return writer.node("", self.module), writer.tensors

    def load(self, node: Node, tensors: dict[str, Tensor], device: torch.device) -> None:
        """Put back what `save` returned; tensors that were on a GPU go to `device`.

        Raises:
            HeldStateError: it does not fit the module.
        """
        try:
            with torch.no_grad():
                Reader(tensors, device).value("", node, self.module)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise HeldStateError(
                f"the checkpoint does not fit the loss as it is built now: {error}"
            ) from error

    def _note(self, path: str, value: Any, seen: set[int]) -> None:
        if isinstance(value, PLAIN):
            return
        self.built[path] = value
        if id(value) not in seen:
            seen.add(id(value))
            for name, part in _parts(value):
                self._note(f"{path}.{name}", part, seen)


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    if type(value) in MAPPINGS:
        yield from value.items()
    elif type(value) in SEQUENCES.values():
        yield from enumerate(value)
    elif not isinstance(value, (Tensor, np.ndarray, np.generic, *FIXED, *GENERATORS)) and is_object(value):
        yield from attributes(value).items()


class _Writer:
    def __init__(self, built: dict[str, Any], module: nn.Module) -> None:
        self.built = built
        self.tensors: dict[str, Tensor] = {}
        self.paths: dict[int, str] = {}
        self.kept: list[Any] = []  # so that no id is given twice
        self.storages = {p.untyped_storage().data_ptr(): "a parameter" for p in module.parameters()}
        self.parameters = {id(parameter) for parameter in module.parameters()}

    def node(self, path: str, value: Any) -> Node:
        if type(value) in PLAIN:
            return value
        if id(value) in self.paths:
            return {"same": self.paths[id(value)]}
        self.paths[id(value)] = path
        self.kept.append(value)
        if isinstance(value, FIXED) or id(value) in self.parameters:
            return self._built(path, value, {"fixed": type(value).__name__})
        if isinstance(value, GENERATORS):
            return self._built(path, value, self._random_state(path, value))
        if isinstance(value, (Tensor, np.ndarray, np.generic)):
            return self._data(path, value)
        if type(value) in SEQUENCES.values():
            return {type(value).__name__: self._items(path, value)}
        if not is_object(value):
            raise _refusal(path, f"holds a {type(value).__name__}, which cannot be written as data")
        node = {name: self.node(f"{path}.{name}", part) for name, part in attributes(value).items()}
        extra = (
            [self.node(f"{path}.get_extra_state()", value.get_extra_state())]
            if has_extra_state(value)
            else []
        )
        return self._built(path, value, {"object": [node, *extra]})

    def _built(self, path: str, value: Any, node: Node) -> Node:
        """Return the node of what is not written itself: a resumed trial must find it where it is now."""
        there = self.built.get(path, MISSING)
        if there is not value and not (isinstance(value, MethodType) and there == value):
            raise _refusal(path, f"got a {type(value).__name__} that the constructor had not put there")
        return node

    def _items(self, path: str, value: Any) -> list[Node]:
        if isinstance(value, (set, frozenset)) and any(type(item) not in PLAIN for item in value):
            raise _refusal(path, "holds a set of other things than numbers and texts")
        if type(value) in MAPPINGS:
            if any(type(key) not in PLAIN for key in value):
                raise _refusal(path, "holds a dict whose keys are no numbers or texts")
            return [[key, self.node(f"{path}.{key}", part)] for key, part in value.items()]
        items = [self.node(f"{path}.{number}", part) for number, part in enumerate(value)]
        return [items, value.maxlen] if hasattr(value, "maxlen") else items

    def _random_state(self, path: str, value: Any) -> Node:
        if isinstance(value, random.Random):
            return {"random": value.getstate()}
        if isinstance(value, np.random.Generator):
            state = value.bit_generator.state
            return {"numpy_random": self.node(f"{path}.state", state)}
        return {"torch_random": self._stored(value.get_state())}

    def _data(self, path: str, value: Any) -> Node:
        if isinstance(value, Tensor):
            self._check_tensor(path, value)
            return {"tensor": [self._stored(value), value.is_cuda, value.stride()]}
        if value.dtype.kind not in "biuf":
            raise _refusal(path, f"holds an array of {value.dtype}")
        array = self._stored(torch.from_numpy(np.array(value, order="C")))
        return {"array": [array, isinstance(value, np.generic)]}

    def _check_tensor(self, path: str, value: Tensor) -> None:
        if value.requires_grad:
            raise _refusal(path, "holds a tensor of an autograd graph: store it with .detach()")
        storage = value.untyped_storage() if value.layout == torch.strided else None
        if storage is None or storage.nbytes() < value.numel() * value.itemsize:
            raise _refusal(path, "holds a sparse or expanded tensor: store a dense one, with .clone()")
        memory = storage.data_ptr()
        if memory and (other := self.storages.setdefault(memory, path)) != path:
            raise _refusal(path, f"shares its memory with {display_name(other)}: store it with .clone()")

    def _stored(self, value: Tensor) -> str:
        key = str(len(self.tensors))
        self.tensors[key] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return key


def _refusal(path: str, problem: str) -> HeldStateError:
    return HeldStateError(
        f"`{display_name(path)}` of the loss {problem}. An interrupted trial could not resume to the same bits. "
        "Use tensors, numbers, texts and lists of them, or define `get_extra_state` and `set_extra_state`"
    )
