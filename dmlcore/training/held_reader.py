"""Read what a loss held back from JSON and tensors, in place wherever that can be: two names of one thing stay so."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmlcore.training.held_parts import (
    MAPPINGS,
    MISSING,
    PLAIN,
    SEQUENCES,
    HeldStateError,
    Node,
    attributes,
    display_name,
    set_attribute,
)


class Reader:
    """Puts what was written back into a module that was built anew."""

    def __init__(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        self.tensors, self.device = tensors, device
        self.values: dict[str, Any] = {}
        self.taken: set[int] = set()
        self.kinds: dict[str, Callable[[str, Any, Any], Any]] = {
            "fixed": self._fixed,
            "object": self._object,
            "tensor": self._tensor,
            "array": self._array,
            "random": self._random,
            "numpy_random": self._numpy_random,
            "torch_random": self._torch_random,
        }

    def value(self, path: str, node: Node, live: Any) -> Any:
        """Return the value of a node: `live` itself, changed in place, wherever that can be."""
        if type(node) in PLAIN:
            return node
        ((kind, content),) = node.items()
        if kind == "same":
            return self.values[content]
        if id(live) in self.taken and kind not in ("fixed", "object"):
            live = MISSING  # two that were one and the same when they were built
        self.taken.add(id(live))
        self.values[path] = live  # a part may refer to the whole
        self.values[path] = (
            self._items(path, kind, content, live)
            if kind in SEQUENCES
            else self.kinds[kind](path, content, live)
        )
        return self.values[path]

    def _fixed(self, path: str, content: str, live: Any) -> Any:
        if type(live).__name__ != content:
            raise HeldStateError(f"`{display_name(path)}` was a {content} and is a {type(live).__name__}")
        return live

    def _object(self, path: str, content: list[Node], live: Any) -> Any:
        nodes, *extra = content
        current = attributes(live)
        for name, node in nodes.items():
            part = self.value(f"{path}.{name}", node, current.get(name, MISSING))
            if part is not current.get(name, MISSING):
                set_attribute(live, name, part)
        for name in current.keys() - nodes.keys():
            del vars(live)[name]
        if extra:
            live.set_extra_state(self.value(f"{path}.get_extra_state()", extra[0], MISSING))
        return live

    def _items(self, path: str, kind: str, content: Any, live: Any) -> Any:
        made = SEQUENCES[kind]
        old: Any = live if type(live) is made else made()
        if made in MAPPINGS:
            found = [(key, self.value(f"{path}.{key}", node, old.get(key, MISSING))) for key, node in content]
            old.clear()
            old.update(found)
            return old
        nodes, maxlen = content if made is deque else (content, None)
        parts = dict(enumerate(old))
        items = [self.value(f"{path}.{n}", node, parts.get(n, MISSING)) for n, node in enumerate(nodes)]
        if made is tuple and len(items) == len(old) and all(a is b for a, b in zip(items, old, strict=True)):
            return old
        if made in (tuple, frozenset) or (made is deque and old.maxlen != maxlen):
            return deque(items, maxlen) if made is deque else made(items)
        old.clear()
        old.update(items) if made is set else old.extend(items)
        return old

    def _tensor(self, path: str, content: list[Any], live: Any) -> Tensor:
        key, on_gpu, stride = content
        stored, device = self.tensors[key], self.device if on_gpu else torch.device("cpu")
        layout = (stored.shape, stored.dtype, device.type, tuple(stride))
        if not isinstance(live, Tensor) or layout != (
            live.shape,
            live.dtype,
            live.device.type,
            live.stride(),
        ):
            live = torch.empty_strided(stored.shape, stride, dtype=stored.dtype, device=device)
        return live.copy_(stored)

    def _array(self, path: str, content: list[Any], live: Any) -> Any:
        stored = self.tensors[content[0]].numpy()
        if content[1]:
            return stored[()]
        if not isinstance(live, np.ndarray) or (live.shape, live.dtype) != (stored.shape, stored.dtype):
            return stored.copy()
        live[...] = stored
        return live

    def _random(self, path: str, content: list[Any], live: random.Random) -> random.Random:
        version, numbers, spare = content
        live.setstate((version, tuple(numbers), spare))
        return live

    def _numpy_random(self, path: str, content: Node, live: np.random.Generator) -> np.random.Generator:
        live.bit_generator.state = self.value(f"{path}.state", content, MISSING)
        return live

    def _torch_random(self, path: str, content: str, live: torch.Generator) -> torch.Generator:
        live.set_state(self.tensors[content])
        return live
