"""A catalogue of images -> `manifest.parquet`, `images.bin`, `dataset.json`: whole and valid, or not there at all."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dmlcore.config import PreprocessConfig
from dmlcore.data.catalogue import Catalogue, Item
from dmlcore.data.errors import DataError
from dmlcore.data.files import replaced_folder
from dmlcore.data.manifest import SCHEMA, cross_class_duplicates, validate
from dmlcore.data.packed import IMAGES, MANIFEST, SCHEMA_VERSION, SUMMARY, PreparedDataset, Split
from dmlcore.data.splits import SPLITS, assign_splits

LAYOUTS = {
    "raw": "raw uint8 pixels, height x width x channels, one image after another",
    "jpeg": "JPEG files, RGB, one after another",
}
Baseline = Callable[[Split], Mapping[str, float]]


def prepare(
    name: str, catalogue: Catalogue, config: PreprocessConfig, folder: Path, baseline: Baseline
) -> None:
    """Read, split, pack and validate a data set.

    Args:
        name: of the data set, as in params.yaml.
        catalogue: its images.
        config: its `preprocess` section.
        folder: written whole or not at all; the same input gives the same bytes.
        baseline: metrics of the raw pixels of the test split, stored as `raw_pixels`.

    Raises:
        DataError: an image cannot be read, or the manifest breaks a rule; `folder` is left as it was.
    """
    with replaced_folder(folder) as temporary:
        manifest = _pack(catalogue, config, temporary / IMAGES)
        size = (temporary / IMAGES).stat().st_size
        validate(manifest, config, channels=catalogue.channels, size_bytes=size)
        manifest.write_parquet(temporary / MANIFEST)
        summary = _summary(name, catalogue, config, manifest) | {
            "data_hash": data_hash(manifest, temporary / IMAGES)
        }
        _write_summary(temporary, summary)
        metrics = baseline(PreparedDataset.open(temporary).split("test"))
        # JSON has no NaN: a metric that is undefined on these classes is null.
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        _write_summary(temporary, summary | {"raw_pixels": finite})


def data_hash(manifest: pl.DataFrame, images: Path) -> str:
    """Sha256 of the manifest (as CSV, since parquet bytes change with the library) and of the pixels after it."""
    digest = hashlib.sha256(manifest.write_csv().encode())
    with images.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _pack(catalogue: Catalogue, config: PreprocessConfig, path: Path) -> pl.DataFrame:
    with path.open("wb") as file:
        rows = list(_rows(catalogue, config, file.write))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _rows(
    catalogue: Catalogue, config: PreprocessConfig, write: Callable[[bytes], int]
) -> Iterator[tuple[Any, ...]]:
    offset = 0
    for index, (split, label, item) in enumerate(_ordered(catalogue, config)):
        pixels = catalogue.read(item)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != catalogue.channels:
            raise DataError(
                f"{item.source!r}: pixels must be uint8 [H, W, {catalogue.channels}], got {pixels.shape}"
            )
        data = pixels.tobytes()
        write(data)
        digest = hashlib.sha256(data).hexdigest()
        place = (*pixels.shape[:2], offset, len(data))
        yield index, split, item.class_name, label, item.super_class, item.role, item.source, digest, *place
        offset += len(data)


def _ordered(catalogue: Catalogue, config: PreprocessConfig) -> list[tuple[str, int, Item]]:
    if not catalogue.items:
        raise DataError("the data set has no images; look at its `source`")
    labels = {name: label for label, name in enumerate(sorted({item.class_name for item in catalogue.items}))}
    splits = assign_splits(catalogue.items, config.split)
    rows = [
        (split, labels[item.class_name], item) for split, item in zip(splits, catalogue.items, strict=True)
    ]
    return sorted(rows, key=lambda row: (SPLITS.index(row[0]), row[1], row[2].source))


def _summary(
    name: str, catalogue: Catalogue, config: PreprocessConfig, manifest: pl.DataFrame
) -> dict[str, Any]:
    counts = {split: _counts(manifest.filter(pl.col("split") == split)) for split in SPLITS}
    within = manifest.select(pl.struct("sha256", "label").is_duplicated().sum()).item()
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "description": catalogue.description,
        "licence": catalogue.licence,
        "protocol": _protocol(config, counts),
        "counts": counts | {"all": _counts(manifest)},
        "channels": catalogue.channels,
        "image_size": config.image_size,
        "encoding": config.encoding,
        "layout": LAYOUTS[config.encoding],
        "duplicates": {
            "across_classes": cross_class_duplicates(manifest).height,
            "within_a_class": int(within),
        },
    }


def _counts(manifest: pl.DataFrame) -> dict[str, int]:
    return {"classes": manifest["label"].n_unique(), "images": manifest.height}


def _protocol(config: PreprocessConfig, counts: Mapping[str, Mapping[str, int]]) -> str:
    split = config.split
    kept = (
        "images of each class divided (closed set)"
        if split.protocol == "closed"
        else f"no {split.unit} in two splits"
    )
    classes = " / ".join(str(counts[name]["classes"]) for name in SPLITS)
    rule = f"rule {split.rule}, seed {split.seed}" if split.rule != "listed" else "rule listed"
    return f"{kept}; {rule}; {classes} classes train / validation / test"


def _write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / SUMMARY).write_text(text, encoding="utf-8")
