"""`omniglot`: handwritten characters of many alphabets. A class is a character, its super-class the alphabet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.raw_tar import RawTar
from dmlcore.datasets.prepare.catalogue import Catalogue, Item, imported_catalogue


def load_catalogue(raw: Path, config: PreprocessConfig) -> Catalogue:
    """List the drawings of raw/NAME, grey, classes `Greek/character01`.

    The two small archives share the alphabets Greek and Latin, file for file: each drawing is taken once.

    Raises:
        DataError: a file outside ARCHIVE/ALPHABET/CHARACTER/, or other counts than the published ones.
    """
    return replace(imported_catalogue(raw, _items), channels=1)


def _items(tar: RawTar) -> list[Item]:
    items: dict[str, Item] = {}
    for path in sorted(tar.members):
        parts = path.split("/")
        if len(parts) != 4:
            raise DataError(f"{path!r}: must be in ARCHIVE/ALPHABET/CHARACTER/; get the archives again")
        name = f"{parts[1]}/{parts[2]}"
        items.setdefault(f"{name}/{parts[3]}", Item(name, parts[1], path, split_text=name))
    return list(items.values())
