"""Save and restore the state that a loss keeps outside its parameters: buffers, queues, counters, random generators.

`state_dict` covers parameters and registered buffers only, but losses also keep state in plain attributes, such as the
queue position of a cross-batch memory. Without it, a resumed trial would not reproduce an uninterrupted one. Nothing is
pickled: the state is JSON and tensors, and is restored into a loss that was constructed again.
"""

from __future__ import annotations

import functools
import random
from collections import deque
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dmlcore.training.loss_state_encoding import (
    CONTAINERS,
    MAPPINGS,
    MISSING,
    SCALARS,
    Encoder,
    LossStateError,
    Node,
    attributes,
    children,
    display_name,
)


class LossState:
    """The state of a loss outside its parameters.

    Args:
        module: the loss as constructed, before its first batch.

    Global variables of the module's file are not included. If a class defines `get_extra_state` and `set_extra_state`,
    these replace its attributes; the extra state must be data.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.initial: dict[str, Any] = {}
        self._index("", module, set())

    def save(self) -> tuple[Node, dict[str, Tensor]]:
        """Return JSON values, and the tensors that they refer to.

        Raises:
            LossStateError: names the attribute that cannot be stored.
        """
        encoder = Encoder(self.initial, self.module)
        return encoder.encode("", self.module), encoder.tensors

    def load(self, node: Node, tensors: dict[str, Tensor], device: torch.device) -> None:
        """Restore what `save` returned; tensors that were on a GPU are moved to `device`.

        Raises:
            LossStateError: the state does not match the module.
        """
        try:
            with torch.no_grad():
                Decoder(tensors, device).decode("", node, self.module)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise LossStateError(f"the checkpoint does not match the loss: {error}") from error

    def _index(self, path: str, value: Any, seen: set[int]) -> None:
        if isinstance(value, SCALARS):
            return
        self.initial[path] = value
        if id(value) not in seen:
            seen.add(id(value))
            for name, part in children(value):
                self._index(f"{path}.{name}", part, seen)


class Decoder:
    """Restores nodes into a module, in place where possible, so that aliases of one object remain aliases."""

    def __init__(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        self.tensors, self.device = tensors, device
        self.values: dict[str, Any] = {}
        self.restored: set[int] = set()
        self.kinds: dict[str, Callable[[str, Any, Any], Any]] = {
            "fixed": self._fixed,
            "object": self._object,
            "tensor": self._tensor,
            "array": self._array,
            "random": self._random,
            "numpy_random": self._numpy_random,
            "torch_random": self._torch_random,
        }

    def decode(self, path: str, node: Node, current: Any) -> Any:
        """Return the value of a node: `current` itself, changed in place, where possible."""
        if type(node) in SCALARS:
            return node
        ((kind, content),) = node.items()
        if kind == "same":
            return self.values[content]
        if id(current) in self.restored and kind not in ("fixed", "object"):
            current = MISSING  # aliases after construction that were different objects when they were saved
        self.restored.add(id(current))
        self.values[path] = current  # before its parts are decoded: they may refer to it
        self.values[path] = (
            self._items(path, kind, content, current)
            if kind in CONTAINERS
            else self.kinds[kind](path, content, current)
        )
        return self.values[path]

    def _fixed(self, path: str, content: str, current: Any) -> Any:
        if type(current).__name__ != content:
            raise LossStateError(
                f"attribute `{display_name(path)}` was a {content}, now it is a {type(current).__name__}"
            )
        return current

    def _object(self, path: str, content: list[Node], current: Any) -> Any:
        nodes, *extra = content
        parts = attributes(current)
        for name, node in nodes.items():
            part = self.decode(f"{path}.{name}", node, parts.get(name, MISSING))
            if part is not parts.get(name, MISSING):
                _set_attribute(current, name, part)
        for name in parts.keys() - nodes.keys():
            del vars(current)[name]
        if extra:
            current.set_extra_state(self.decode(f"{path}.get_extra_state()", extra[0], MISSING))
        return current

    def _items(self, path: str, kind: str, content: Any, current: Any) -> Any:
        made = CONTAINERS[kind]
        old: Any = current if type(current) is made else made()
        if made in MAPPINGS:
            items = [
                (key, self.decode(f"{path}.{key}", node, old.get(key, MISSING))) for key, node in content
            ]
            old.clear()
            old.update(items)
            return old
        nodes, maxlen = content if made is deque else (content, None)
        parts = dict(enumerate(old))
        items = [self.decode(f"{path}.{n}", node, parts.get(n, MISSING)) for n, node in enumerate(nodes)]
        if made is tuple and len(items) == len(old) and all(a is b for a, b in zip(items, old, strict=True)):
            return old
        if made in (tuple, frozenset) or (made is deque and old.maxlen != maxlen):
            return deque(items, maxlen) if made is deque else made(items)
        old.clear()
        old.update(items) if made is set else old.extend(items)
        return old

    def _tensor(self, path: str, content: list[Any], current: Any) -> Tensor:
        key, on_gpu, stride = content
        stored, device = self.tensors[key], self.device if on_gpu else torch.device("cpu")
        layout = (stored.shape, stored.dtype, device.type, tuple(stride))
        if not isinstance(current, Tensor) or layout != (
            *(current.shape, current.dtype),
            *(current.device.type, current.stride()),
        ):
            current = torch.empty_strided(stored.shape, stride, dtype=stored.dtype, device=device)
        return current.copy_(stored)

    def _array(self, path: str, content: list[Any], current: Any) -> Any:
        stored = self.tensors[content[0]].numpy()
        if content[1]:
            return stored[()]
        if not isinstance(current, np.ndarray) or (current.shape, current.dtype) != (
            stored.shape,
            stored.dtype,
        ):
            return stored.copy()
        current[...] = stored
        return current

    def _random(self, path: str, content: list[Any], current: random.Random) -> random.Random:
        version, numbers, spare = content
        current.setstate((version, tuple(numbers), spare))
        return current

    def _numpy_random(self, path: str, content: Node, current: np.random.Generator) -> np.random.Generator:
        current.bit_generator.state = self.decode(f"{path}.state", content, MISSING)
        return current

    def _torch_random(self, path: str, content: str, current: torch.Generator) -> torch.Generator:
        current.set_state(self.tensors[content])
        return current


def _set_attribute(value: Any, name: str, part: Any) -> None:
    """Set an attribute, or a variable that a function closes over."""
    if isinstance(value, FunctionType):
        cells = dict(zip(value.__code__.co_freevars, value.__closure__ or (), strict=True))
        cells[name].cell_contents = part
    elif not isinstance(value, (MethodType, functools.partial)):
        # Not setattr: nn.Module would not accept a plain tensor in place of a registered buffer.
        vars(value)[name] = part
