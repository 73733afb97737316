"""`image_folder`: anyone's own photographs, one folder a class, packed into one file at download.

The folder is untrusted input: links out of it, files that are no images, names that are no text and images that would
fill the memory are refused by name. Nothing is ever unpacked to disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.raw_tar import IMAGES_TAR, RawTar
from dmlcore.datasets.prepare.catalogue import Catalogue, Item, encoded_catalogue


def load_catalogue(raw: Path, config: PreprocessConfig) -> Catalogue:
    """The images of a pack, super-classes from the CSV that `config.super_classes` names.

    Raises:
        DataError: a class without a super-class, or a rule that needs what is not there.
    """
    pack = RawTar.open(raw / IMAGES_TAR)
    images = sorted(name for name in pack.places if "/" in name)
    super_classes = _super_classes(pack, sorted({_class_name(path) for path in images}), config)
    return encoded_catalogue(
        pack,
        [_item(path, super_classes) for path in images],
        description="images from the user's own class folders",
        licence="the user's own: not known to this project",
    )


def _class_name(path: str) -> str:
    return path.split("/")[0]


def _item(path: str, super_classes: Mapping[str, str]) -> Item:
    name = _class_name(path)
    return Item(name, super_classes[name], path, split_text=name)


def _super_classes(pack: RawTar, classes: Iterable[str], config: PreprocessConfig) -> Mapping[str, str]:
    if config.super_classes is None:
        if config.split.unit == "super_class":
            raise DataError(
                "split unit `super_class` needs `super_classes`, the CSV in the source folder; got none"
            )
        return {name: name for name in classes}
    if config.super_classes not in pack.places:
        raise DataError(
            f"{config.super_classes!r}: no such file at the top of the source folder; put it there"
        )
    known = _read_table(pack.read(config.super_classes), config.super_classes)
    for name in classes:
        if not known.get(name):
            raise DataError(f"{config.super_classes}: class {name!r} has no super_class; add its row")
    return known


def _read_table(data: bytes, name: str) -> Mapping[str, str]:
    try:
        table = pl.read_csv(data, infer_schema=False).select("class_name", "super_class")
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{name}: must be CSV with the columns class_name, super_class: {error}") from None
    twice = table.filter(pl.col("class_name").is_duplicated())
    if not twice.is_empty():
        raise DataError(f"{name}: a class must have one row, got {twice.rows()[:2]}")
    return dict(table.rows())
