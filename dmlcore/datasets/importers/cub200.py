"""`cub200`: Caltech-UCSD Birds-200-2011. Classes 1-100 train, 101-200 test."""

from __future__ import annotations

from pathlib import Path

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.raw_tar import RawTar
from dmlcore.datasets.prepare.catalogue import (
    Catalogue,
    Half,
    Item,
    imported_catalogue,
    parse_count,
    read_table,
)

ROOT = "CUB_200_2011"
TRAINING_CLASSES = 100


def load_catalogue(raw: Path, config: PreprocessConfig) -> Catalogue:
    """List the images of CUB-200-2011, class names as published (`001.Black_footed_Albatross`).

    Its own train_test_split.txt divides the images of each class (a closed set): it is not read.

    Raises:
        DataError: a list breaks its format, an image is absent, or the counts are not the published ones.
    """
    return imported_catalogue(raw, _items)


def _items(tar: RawTar) -> list[Item]:
    classes = read_table(tar, f"{ROOT}/classes.txt")
    labels = read_table(tar, f"{ROOT}/image_class_labels.txt")
    images = read_table(tar, f"{ROOT}/images.txt")
    if labels.keys() != images.keys():
        odd = min(labels.keys() ^ images.keys())
        raise DataError(
            f"image_class_labels.txt and images.txt must list the same images, image {odd} is in one"
        )
    return [_item(path, labels[number], classes) for number, path in images.items()]


def _item(path: str, label: str, classes: dict[str, str]) -> Item:
    name = classes.get(label)
    if name is None or path.split("/")[0] != name:
        raise DataError(f"images.txt: {path!r} must be in the folder of its class {label}, which is {name!r}")
    half: Half = "train" if parse_count(label, "classes.txt") <= TRAINING_CLASSES else "test"
    return Item(name, name, f"{ROOT}/images/{path}", split_text=name, official=half)
