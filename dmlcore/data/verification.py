"""The hash of a prepared data set, and its verification: its files are those that `preprocess` wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from dmlcore.core.errors import DataError
from dmlcore.core.io import write_atomically
from dmlcore.core.sealed_json import SealError, check_seal, json_object, sealed
from dmlcore.data.dataset import CLASS_TEXTS, IMAGES, MANIFEST, SUMMARY, PreparedDataset

SLICE = 1 << 16
"""Rows of a table that are text at once."""


def verify(data: PreparedDataset) -> None:
    """Hash the manifest, images and class texts of a data set, and compare with the hash that it claims.

    Raises:
        DataError: they were changed since the data set was prepared.
    """
    texts = data.folder / CLASS_TEXTS
    found = data_hash(
        data.manifest, data.folder / IMAGES, texts.read_text(encoding="utf-8") if texts.is_file() else ""
    )
    if found != data.data_hash:
        raise DataError(
            f"{data.folder}: {MANIFEST}, {IMAGES} or {CLASS_TEXTS} was changed since it was prepared: the hash is "
            f"{found[:8]}, {SUMMARY} says {data.data_hash[:8]}; remove the folder and run `dvc repro` in data/"
        )


def verify_once(data: PreparedDataset, known: Path) -> None:
    """Verify a data set unless its files have the sizes and times that they had when they were last verified.

    Args:
        data: the data set.
        known: file that remembers them; a file that cannot be read is replaced.

    Raises:
        DataError: as `verify`.
    """
    now = {"folder": str(data.folder), "data_hash": data.data_hash, "files": _versions(data.folder)}
    try:
        before = json_object(known.read_bytes())
        check_seal(before)
    except (OSError, SealError):
        before = {}
    if before != now:
        verify(data)
        write_atomically(known, sealed(now))


def _versions(folder: Path) -> dict[str, list[int]]:
    """Return name -> size and time of each file of a data set."""
    paths = [folder / name for name in (MANIFEST, IMAGES, SUMMARY, CLASS_TEXTS)]
    found = {path.name: path.stat() for path in paths if path.is_file()}
    return {name: [status.st_size, status.st_mtime_ns] for name, status in found.items()}


def data_hash(manifest: pl.DataFrame, images: Path, class_texts: str = "") -> str:
    """Return the sha256 of manifest, images and class texts.

    The manifest is hashed as CSV: the bytes of a parquet file change with the library that writes it.
    """
    digest = hashlib.sha256()
    for rows in csv_blocks(manifest):
        digest.update(rows)
    with images.open("rb") as file:
        hashlib.file_digest(file, lambda: digest)  # Goes on with `digest`.
    digest.update(class_texts.encode())
    return digest.hexdigest()


def csv_blocks(table: pl.DataFrame) -> Iterator[bytes]:
    """Yield `table.write_csv()` in blocks, so that a million rows are never one text."""
    for number, block in enumerate(table.iter_slices(SLICE)):
        yield block.write_csv(include_header=number == 0).encode()
