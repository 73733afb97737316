"""What a kind of data set hands to preprocessing: its images by name, and a way to read each one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Half = Literal["train", "test"]
Role = Literal["both", "query", "gallery"]


@dataclass(frozen=True, slots=True)
class Item:
    """One image before it is read."""

    class_name: str
    super_class: str
    source: str
    """Where it comes from, unique in the data set: the path in the user's folder, or the character and face."""
    split_text: str
    """What the `hashed` rule hashes for this item's class."""
    role: Role = "both"
    """In evaluation: a query, in the gallery that queries search, or both."""
    official: Half | None = None
    """The half of the published class-disjoint split that its class lies in; None: no split was published."""


@dataclass(frozen=True)
class Catalogue:
    """All images of a data set."""

    items: tuple[Item, ...]
    read: Callable[[Item], Pixels | bytes]
    """One image, called from several threads at once. Bytes: a photograph's file as it was published, which
    preprocessing decodes and resizes. Pixels, uint8 [H, W, C]: drawings and small images, stored at this size."""
    channels: int
    """C of what is stored `raw`; 1 makes photographs grey."""
    description: str
    licence: str
    class_texts: Mapping[str, str] | None = None
    """A sentence or more about each class, for language guidance; None: its name is all."""
