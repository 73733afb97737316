"""`grocery`: the Grocery Store data set, photographs of fruit, vegetables and packages on shelves.

Two forms, one layout: an image is in the folder of its fine class, and `classes.csv` gives each fine class its coarse
one and its product description. `fine_classes` chooses which are the classes. The published split has the same classes
in both halves (closed): it is not read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.core.text import decode_text
from dmlcore.datasets.acquire.raw_tar import IMAGES_TAR, RawTar
from dmlcore.datasets.prepare.catalogue import Catalogue, Item, imported_catalogue

TABLE = "classes.csv"
FINE, COARSE, DESCRIPTION = "Class Name (str)", "Coarse Class Name (str)", "Product Description Path (str)"


class Product(NamedTuple):
    """A fine class; `description` is the path of its text as classes.csv has it."""

    coarse: str
    description: str


def load_catalogue(raw: Path, config: PreprocessConfig) -> Catalogue:
    """List the photographs of raw/NAME by coarse or fine class, with one text per class from the descriptions."""
    catalogue = imported_catalogue(raw, _items)
    texts = class_texts(RawTar.open(raw / IMAGES_TAR), fine=config.fine_classes)
    items = catalogue.items if config.fine_classes else tuple(map(_coarse, catalogue.items))
    return replace(catalogue, items=items, class_texts=texts)


def class_texts(tar: RawTar, *, fine: bool) -> dict[str, str]:
    """Return class -> its name and the first sentence of each product's description, each sentence once."""
    root, products = _products(tar)
    sentences: dict[str, dict[str, None]] = {}
    for name, product in products.items():
        path = _description(tar, root, name, product)
        text = decode_text(tar.read(path), path)
        sentences.setdefault(name if fine else product.coarse, {})[_first_sentence(text)] = None
    return {name: f"{name.replace('-', ' ')}: {' '.join(texts)}" for name, texts in sorted(sentences.items())}


def _items(tar: RawTar) -> list[Item]:
    root, products = _products(tar)
    return [
        _item(path, products)
        for path in sorted(tar.members)
        if path.endswith(".jpg") and path.startswith(root)
    ]


def _item(path: str, products: Mapping[str, Product]) -> Item:
    fine = PurePosixPath(path).parent.name
    if fine not in products:
        raise DataError(
            f"{path!r}: must be in the folder of a class of {TABLE}, got {fine!r}; get the archive again"
        )
    return Item(fine, products[fine].coarse, path, split_text=fine)


def _coarse(item: Item) -> Item:
    return replace(item, class_name=item.super_class, split_text=item.super_class)


def _products(tar: RawTar) -> tuple[str, dict[str, Product]]:
    """Return the folder that holds classes.csv, and its rows by fine class."""
    found = [path for path in tar.members if PurePosixPath(path).name == TABLE]
    if len(found) != 1:
        raise DataError(f"{TABLE}: must occur once among the raw files, got {found}; get the archive again")
    rows = csv.DictReader(io.StringIO(decode_text(tar.read(found[0]), found[0]), newline=""))
    if missing := {FINE, COARSE, DESCRIPTION} - set(rows.fieldnames or ()):
        raise DataError(f"{TABLE}: must have the columns {sorted(missing)}, got {rows.fieldnames}")
    return found[0].removesuffix(TABLE), {row[FINE]: Product(row[COARSE], row[DESCRIPTION]) for row in rows}


def _description(tar: RawTar, root: str, name: str, product: Product) -> str:
    # A row or two of the published table misspell the file's name; its folder is right.
    folder = PurePosixPath(root + product.description.lstrip("/")).parent
    wanted = f"{folder}/{name}_Description"
    found = [path for path in tar.members if path.startswith(wanted) and "Swedish" not in path]
    if len(found) != 1:
        raise DataError(f"{name}: must have one English product description in {folder}, got {found}")
    return found[0]


def _first_sentence(text: str) -> str:
    return " ".join(text.split()).split(". ")[0].rstrip(".") + "."
