"""The reader of a prepared data set: a manifest, and one file of images opened by memory map.

Shapes: N images of a split.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dmlcore.core.errors import DataError
from dmlcore.core.sealed_json import SealError, json_object
from dmlcore.data.images import Images, RawImages
from dmlcore.data.jpeg import JpegImages
from dmlcore.data.manifest import SPLITS, check_columns, check_pixels

MANIFEST, IMAGES, SUMMARY = "manifest.parquet", "images.bin", "dataset.json"

CLASS_TEXTS = "class_texts.json"
"""Optional: class name -> its description, for language guidance."""

SCHEMA_VERSION = 2
ENCODINGS = ("raw", "jpeg")

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """The images of one split, in the manifest's order."""

    images: Images
    """N images, read from disk when touched."""
    labels: Integers
    """[N], 0..C-1 within this split."""
    index: Integers
    """[N], row of the manifest."""
    class_names: tuple[str, ...]
    """Name of each label."""
    roles: npt.NDArray[np.str_]
    """[N], `query`, `gallery` or `both`: the role of each image in evaluation."""
    groups: Integers | None = None
    """[N], number of the group of each image, in evaluation no pair within a class; None: the data set has none."""
    group_names: tuple[str, ...] = ()
    """Name of each group of the split."""


@dataclass(frozen=True)
class PreparedDataset:
    """A data set as `preprocess` wrote it."""

    folder: Path
    manifest: pl.DataFrame
    summary: dict[str, Any]

    @classmethod
    def open(cls, folder: Path | str) -> PreparedDataset:
        """Open a prepared folder and check it without reading pixels.

        Raises:
            DataError: a file is absent, or manifest, images and summary contradict each other.
        """
        folder = Path(folder)
        summary = _read_summary(folder)
        try:
            manifest = pl.read_parquet(folder / MANIFEST)
            check_columns(manifest)
            size = (folder / IMAGES).stat().st_size
            check_pixels(
                manifest, encoding=summary["encoding"], channels=summary["channels"], size_bytes=size
            )
        except DataError as error:
            raise DataError(f"{folder}: {error}") from None
        # A flipped byte makes polars panic, too.
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise DataError(
                f"{folder / MANIFEST} cannot be read: {str(error)[:200]}; prepare the data set again"
            ) from None
        return cls(folder.resolve(), manifest, summary)

    @property
    def data_hash(self) -> str:
        """Return the sha256 of manifest, images and class texts, computed by `preprocess`."""
        return str(self.summary["data_hash"])

    def class_texts(self) -> dict[str, str]:
        """Return class name -> a sentence or more about it.

        Raises:
            DataError: the data set has no such texts.
        """
        file = self.folder / CLASS_TEXTS
        if not file.is_file():
            raise DataError(
                f"{file}: no such file; this data set does not describe its classes; use their names"
            )
        texts: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
        return texts

    def split(self, name: str) -> Split:
        """Return the split `train`, `validation` or `test`, or several merged: `train+validation`.

        Raises:
            DataError: an unknown name, raw images of different sizes, or splits that are not adjacent.
        """
        names = name.split("+")
        if not set(names) <= set(SPLITS):
            raise DataError(f"split must be one of {SPLITS}, or several joined by +, got {name!r}")
        rows = self.manifest.filter(pl.col("split").is_in(names))
        index = rows["index"].to_numpy().astype(np.int64)
        # Raw pixels of a split are one memory-mapped array, so its rows must be one slice of images.bin.
        if index[-1] - index[0] + 1 != len(index):
            raise DataError(f"{self.folder}: rows of {name!r} must be adjacent in the manifest")
        # Labels of the manifest run over all splits; losses need 0..C-1 within this one.
        known = rows.select("label", "class_name").unique().sort("label")
        labels = np.searchsorted(known["label"].to_numpy(), rows["label"].to_numpy()).astype(np.int64)
        roles = rows["role"].to_numpy().astype(np.str_)
        found = Split(self._images(rows), labels, index, tuple(known["class_name"]), roles)
        if "group" not in rows.columns:
            return found
        names, groups = np.unique(rows["group"].to_numpy().astype(np.str_), return_inverse=True)
        return replace(found, groups=groups.astype(np.int64), group_names=tuple(names.tolist()))

    def _images(self, rows: pl.DataFrame) -> Images:
        if self.summary["encoding"] == "jpeg":
            data = np.memmap(self.folder / IMAGES, np.uint8, mode="r")
            offsets, lengths = (rows[column].to_numpy().astype(np.int64) for column in ("offset", "length"))
            return JpegImages(data, offsets, lengths)
        shapes = rows.select("height", "width").unique()
        if shapes.height != 1:
            raise DataError(f"{self.folder}: images of a split must have one size, got {shapes.rows()[:5]}")
        shape = (len(rows), *shapes.row(0), int(self.summary["channels"]))
        return RawImages(
            np.memmap(self.folder / IMAGES, np.uint8, mode="r", offset=rows["offset"][0], shape=shape)
        )


def _read_summary(folder: Path) -> dict[str, Any]:
    for name in (SUMMARY, MANIFEST, IMAGES):
        if not (folder / name).is_file():
            raise DataError(f"{folder / name}: no such file; prepare the data set: run `dvc repro`")
    try:
        summary = json_object((folder / SUMMARY).read_bytes())
    except SealError as error:
        raise DataError(f"{folder / SUMMARY} {error}; prepare the data set again: run `dvc repro`") from None
    if summary.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"{folder / SUMMARY}: schema_version must be {SCHEMA_VERSION}, got {summary.get('schema_version')}; "
            "prepare the data set again: run `dvc repro`"
        )
    if summary.get("encoding") not in ENCODINGS:
        raise DataError(
            f"{folder / SUMMARY}: encoding must be one of {ENCODINGS}, got {summary.get('encoding')!r}"
        )
    if not isinstance(summary.get("data_hash"), str) or type(summary.get("channels")) is not int:
        raise DataError(
            f"{folder / SUMMARY} must name data_hash and channels; prepare the data set again: run `dvc repro`"
        )
    return summary
