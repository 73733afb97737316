"""A catalogue of images -> `manifest.parquet`, `images.bin`, `dataset.json`: whole and valid, or not there at all."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from dmlcore.config import PreprocessConfig
from dmlcore.data.catalogue import Catalogue
from dmlcore.data.encoding import stored_channels
from dmlcore.data.errors import DataError
from dmlcore.data.files import resumed_folder
from dmlcore.data.journal import Journal
from dmlcore.data.manifest import validate
from dmlcore.data.packed import CLASS_TEXTS, IMAGES, MANIFEST, SUMMARY, PreparedDataset, Split
from dmlcore.data.packing import csv_blocks, fingerprint, manifest_of, ordered_rows, pack
from dmlcore.data.summary import summarise

Baseline = Callable[[Split], Mapping[str, float]]


def prepare(
    name: str,
    catalogue: Catalogue,
    config: PreprocessConfig,
    folder: Path,
    baseline: Baseline,
    *,
    raw: Path | None = None,
) -> None:
    """Read, split, pack and validate a data set; what a killed run has packed is gone on with.

    Args:
        name: of the data set, as in params.yaml.
        catalogue: its images.
        config: its `preprocess` section.
        folder: written whole or not at all; the same input gives the same bytes.
        baseline: metrics of the raw pixels of the test split, stored as `raw_pixels`.
        raw: folder that the catalogue reads from: where it changes, a killed run's work is worth nothing.

    Raises:
        DataError: an image cannot be read, or the manifest breaks a rule; `folder` is left as it was.
    """
    rows = ordered_rows(catalogue, config)
    with resumed_folder(folder, refused=DataError) as partial:
        journal = Journal(partial, IMAGES, fingerprint(rows, config, raw))
        pack(catalogue, config, rows, journal)
        packed = journal.table()
        manifest = manifest_of(rows, packed)
        size = (partial / IMAGES).stat().st_size
        validate(manifest, config, channels=stored_channels(catalogue, config), size_bytes=size)
        summary = summarise(name, catalogue, config, manifest, packed)
        _describe(partial, manifest, summary, catalogue.class_texts, baseline)
        journal.path.unlink()


def data_hash(manifest: pl.DataFrame, images: Path, class_texts: str = "") -> str:
    """Sha256 of the manifest (as CSV, since parquet bytes change with the library), the images and the class texts."""
    digest = hashlib.sha256()
    for rows in csv_blocks(manifest):
        digest.update(rows)
    with images.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    digest.update(class_texts.encode())
    return digest.hexdigest()


def _describe(
    folder: Path,
    manifest: pl.DataFrame,
    summary: Mapping[str, Any],
    class_texts: Mapping[str, str] | None,
    baseline: Baseline,
) -> None:
    """Write manifest, class texts, summary, data hash and baseline beside the packed images."""
    manifest.write_parquet(folder / MANIFEST)
    texts = _json(class_texts) if class_texts else ""
    if texts:
        (folder / CLASS_TEXTS).write_text(texts, encoding="utf-8")
    summary = {**summary, "data_hash": data_hash(manifest, folder / IMAGES, texts)}
    _write_summary(folder, summary)
    metrics = baseline(PreparedDataset.open(folder).split("test"))
    # JSON has no NaN: a metric that is undefined on these classes is null.
    finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    _write_summary(folder, {**summary, "raw_pixels": finite})


def _write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    (folder / SUMMARY).write_text(_json(summary), encoding="utf-8")


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
