"""`cars196`: Stanford Cars. Classes 1-98 train, 99-196 test, over the images of both published halves.

Two forms are in circulation: one folder of images with one table (car_ims), or the images in two folders with the
tables of the development kit (cars_train, cars_test).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from scipy.io import loadmat

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.raw_tar import RawTar
from dmlcore.datasets.prepare.catalogue import Catalogue, Half, Item, imported_catalogue

ONE_TABLE = "cars_annos.mat"
META = "devkit/cars_meta.mat"
TABLES = (
    ("cars_train/", "devkit/cars_train_annos.mat", "fname"),
    ("cars_test/", "cars_test_annos_withlabels.mat", "fname"),
)
TRAINING_CLASSES = 98


def load_catalogue(raw: Path, config: PreprocessConfig) -> Catalogue:
    """List the images of Cars-196, class names as published (`AM General Hummer SUV 2000`)."""
    return imported_catalogue(raw, _items)


def _items(tar: RawTar) -> list[Item]:
    single = ONE_TABLE in tar.members
    tables = (("", ONE_TABLE, "relative_im_path"),) if single else TABLES
    names = [str(name) for name in _column(tar, ONE_TABLE if single else META, "class_names", None)]
    return [
        _item(f"{folder}{path}", int(label), names)
        for folder, table, field in tables
        for path, label in zip(
            _column(tar, table, "annotations", field),
            _column(tar, table, "annotations", "class"),
            strict=True,
        )
    ]


def _column(tar: RawTar, table: str, variable: str, field: str | None) -> list[Any]:
    """Return the values of a MATLAB cell array, or of one field of a struct array."""
    try:
        values = loadmat(io.BytesIO(tar.read(table)), variable_names=[variable])[variable].ravel()
        return [value.item() for value in (values if field is None else values[field])]
    except DataError:
        raise
    except Exception as error:  # scipy raises every kind of error on damaged input.
        place = variable if field is None else f"{variable}.{field}"
        raise DataError(f"{table}: must be a MATLAB table with {place}: {error!r}") from error


def _item(path: str, label: int, names: list[str]) -> Item:
    if not 1 <= label <= len(names):
        raise DataError(f"{path!r}: its class must be 1 to {len(names)}, got {label}")
    name = names[label - 1]
    half: Half = "train" if label <= TRAINING_CLASSES else "test"
    return Item(name, name, path, split_text=name, official=half)
