"""The summary of a data set in `dataset.json`: counts, protocol, duplicates, what was left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dmlcore.config.data import PreprocessConfig
from dmlcore.data.dataset import SCHEMA_VERSION
from dmlcore.data.manifest import SPLITS, cross_class_duplicates
from dmlcore.datasets.prepare.catalogue import Catalogue
from dmlcore.datasets.prepare.encoding import LAYOUTS, stored_channels
from dmlcore.datasets.prepare.journal import unpack_hashes
from dmlcore.datasets.prepare.near_duplicates import DRAWING_RADIUS, RADIUS, NearPairs, near_pairs

LISTED = 100
"""Unreadable images and pairs of near-identical ones that are named."""


def summarise(
    name: str, catalogue: Catalogue, config: PreprocessConfig, manifest: pl.DataFrame, encoded: pl.DataFrame
) -> dict[str, Any]:
    """Return the summary without the data hash.

    Args:
        name: of the data set.
        catalogue: its images.
        config: its `preprocess` section.
        manifest: its rows.
        encoded: the journal's table, with the rows of unreadable images.
    """
    counts = {split: _counts(manifest.filter(pl.col("split") == split)) for split in SPLITS}
    broken = encoded.filter(pl.col("error") != "")
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "description": catalogue.description,
        "licence": catalogue.licence,
        "protocol": _protocol(config, counts),
        "counts": counts | {"all": _counts(manifest)},
        "channels": stored_channels(catalogue, config),
        "image_size": config.image_size,
        "encoding": config.encoding,
        "layout": LAYOUTS[config.encoding],
        "unreadable": {"images": broken.height, "first": broken["error"].head(LISTED).to_list()},
        "duplicates": _duplicates(catalogue, config, manifest, encoded),
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
    hashed = split.rule in ("hashed", "scripts", "official")
    rule = f"rule {split.rule}, seed {split.seed}" if hashed else f"rule {split.rule}"
    return f"{kept}; {rule}; {classes} classes train / validation / test"


def _duplicates(
    catalogue: Catalogue, config: PreprocessConfig, manifest: pl.DataFrame, encoded: pl.DataFrame
) -> dict[str, Any]:
    within = manifest.select(pl.struct("sha256", "label").is_duplicated().sum()).item()
    splits = manifest.select((pl.col("split").n_unique().over("sha256") > 1).sum()).item()
    return {
        "across_classes": cross_class_duplicates(manifest).height,
        "across_splits": int(splits),
        "within_a_class": int(within),
        "near_identical": _near_identical(catalogue, config, manifest, encoded),
    }


def _near_identical(
    catalogue: Catalogue, config: PreprocessConfig, manifest: pl.DataFrame, encoded: pl.DataFrame
) -> dict[str, Any]:
    hashes = unpack_hashes(encoded.filter(pl.col("error") == ""))
    drawings = config.encoding == "raw" and catalogue.channels == 1
    # Drawings of different classes look alike as a rule: only one drawing in two splits is a leak.
    columns, radius = (["split"], DRAWING_RADIUS) if drawings else (["split", "label"], RADIUS)
    pairs = near_pairs(hashes, _differ(manifest, columns), radius=radius, limit=LISTED)
    names = {"split": "across_splits", "label": "across_classes"}
    return {
        "rule": f"128-bit difference hashes that differ in at most {radius} bits; pairs of images",
        **{names[column]: int(count) for column, count in zip(columns, pairs.counts, strict=True)},
        "images_not_compared_with_all_alike": pairs.skipped,
        "first": _named(pairs, manifest),
    }


def _differ(
    manifest: pl.DataFrame, columns: list[str]
) -> Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.bool_]]:
    codes = [manifest[column].rank("dense").to_numpy() for column in columns]
    return lambda one, other: np.stack([code[one] != code[other] for code in codes], axis=1)


def _named(pairs: NearPairs, manifest: pl.DataFrame) -> list[str]:
    def named(row: int) -> str:
        return f"{manifest['split'][row]} {manifest['source'][row]!r}"

    return [f"{named(one)}, {named(other)}: {bits} bits" for one, other, bits in pairs.first.tolist()]
