"""`caltech101`: Caltech-101, photographs of 101 kinds of objects. No class-disjoint split was published."""

from __future__ import annotations

from pathlib import Path

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.raw_tar import RawTar
from dmlcore.datasets.prepare.catalogue import Catalogue, Item, imported_catalogue

BACKGROUND = "BACKGROUND_Google"
"""Pictures of anything: not a class."""
SAME_PHOTOGRAPHS = {"Faces_easy": "Faces"}
"""`Faces_easy` crops the photographs of `Faces`. One super-class keeps both in one split."""


def load_catalogue(raw: Path, config: PreprocessConfig) -> Catalogue:
    """List the photographs of the 101 object classes, class names as published (`Leopards`, `car_side`)."""
    return imported_catalogue(raw, _items)


def _items(tar: RawTar) -> list[Item]:
    items = []
    for path in sorted(tar.members):
        parts = path.split("/")
        if len(parts) != 3:
            raise DataError(f"{path!r}: must be in 101_ObjectCategories/CLASS/; get the archive again")
        if parts[1] != BACKGROUND:
            items.append(Item(parts[1], SAME_PHOTOGRAPHS.get(parts[1], parts[1]), path, split_text=parts[1]))
    return items
