"""The reader of a prepared data set: the manifest beside one file of pixels, opened by memory map.

Shapes: N images of a split, H x W pixels, C channels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dmlcore.data.errors import DataError
from dmlcore.data.manifest import check_columns, check_pixels
from dmlcore.data.splits import SPLITS

MANIFEST, IMAGES, SUMMARY = "manifest.parquet", "images.bin", "dataset.json"
SCHEMA_VERSION = 1

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """The images of one split, in the manifest's order."""

    images: npt.NDArray[np.uint8]
    """[N, H, W, C], read from disk when touched."""
    labels: Integers
    """[N], 0..C-1 within this split."""
    index: Integers
    """[N], row of the manifest."""
    class_names: tuple[str, ...]
    """Name of each label."""


@dataclass(frozen=True)
class PreparedDataset:
    """A data set as `preprocess` wrote it."""

    folder: Path
    manifest: pl.DataFrame
    summary: dict[str, Any]

    @classmethod
    def open(cls, folder: Path | str) -> PreparedDataset:
        """Open a prepared folder after checks that read no pixels.

        Raises:
            DataError: the folder is absent or its files do not fit together.
        """
        folder = Path(folder)
        summary = _read_summary(folder)
        manifest = pl.read_parquet(folder / MANIFEST)
        check_columns(manifest)
        size = (folder / IMAGES).stat().st_size
        check_pixels(manifest, channels=summary["channels"], size_bytes=size)
        return cls(folder.resolve(), manifest, summary)

    @property
    def data_hash(self) -> str:
        """Sha256 of the manifest and the pixels, as `preprocess` took it."""
        return str(self.summary["data_hash"])

    def split(self, name: str) -> Split:
        """One of `train`, `validation`, `test`.

        Raises:
            DataError: another name, or images of different sizes.
        """
        if name not in SPLITS:
            raise DataError(f"split must be one of {SPLITS}, got {name!r}")
        rows = self.manifest.filter(pl.col("split") == name)
        known = rows.select("label", "class_name").unique().sort("label")
        labels = np.searchsorted(known["label"].to_numpy(), rows["label"].to_numpy()).astype(np.int64)
        index = rows["index"].to_numpy().astype(np.int64)
        return Split(self._images(rows), labels, index, tuple(known["class_name"]))

    def _images(self, rows: pl.DataFrame) -> npt.NDArray[np.uint8]:
        shapes = rows.select("height", "width").unique()
        if shapes.height != 1:
            raise DataError(f"{self.folder}: images of a split must have one size, got {shapes.rows()[:5]}")
        shape = (len(rows), *shapes.row(0), int(self.summary["channels"]))
        start = rows["index"][0]
        if rows["index"][-1] - start + 1 != len(rows):
            raise DataError(f"{self.folder}: rows of a split must follow one another: run `dvc repro` again")
        return np.memmap(self.folder / IMAGES, np.uint8, mode="r", offset=rows["offset"][0], shape=shape)


def _read_summary(folder: Path) -> dict[str, Any]:
    for name in (SUMMARY, MANIFEST, IMAGES):
        if not (folder / name).is_file():
            raise DataError(f"{folder / name}: no such file; the data set is not prepared: run `dvc repro`")
    summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    if summary.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"{folder / SUMMARY}: schema_version must be {SCHEMA_VERSION}, got {summary.get('schema_version')}; "
            "prepare the data set again: run `dvc repro`"
        )
    return summary
