"""`sop`: Stanford Online Products. A class is one product, its super-class one of twelve kinds; the official lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.raw_tar import RawTar
from dmlcore.datasets.prepare.catalogue import Catalogue, Half, Item, imported_catalogue, read_rows

ROOT = "Stanford_Online_Products"
LISTS: dict[Half, str] = {"train": f"{ROOT}/Ebay_train.txt", "test": f"{ROOT}/Ebay_test.txt"}
HEAD = ("image_id", "class_id", "super_class_id", "path")

KINDS = (
    *("bicycle", "cabinet", "chair", "coffee_maker", "fan", "kettle"),
    *("lamp", "mug", "sofa", "stapler", "table", "toaster"),
)
"""By super_class_id, from 1."""


def load_catalogue(raw: Path, config: PreprocessConfig) -> Catalogue:
    """List the images of Stanford Online Products; a class is named by its kind and number (`bicycle 1`)."""
    return imported_catalogue(raw, lambda tar: [*_items(tar, "train"), *_items(tar, "test")])


def _items(tar: RawTar, half: Half) -> Iterator[Item]:
    kinds = {str(number): kind for number, kind in enumerate(KINDS, start=1)}
    for _, label, number, path in read_rows(tar, LISTS[half], len(HEAD), head=HEAD):
        if number not in kinds:
            raise DataError(f"{LISTS[half]}: super_class_id must be 1 to {len(KINDS)}, got {number!r}")
        name = f"{kinds[number]} {label}"
        yield Item(name, kinds[number], f"{ROOT}/{path}", split_text=name, official=half)
