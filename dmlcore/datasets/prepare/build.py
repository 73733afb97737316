"""A catalogue -> a prepared data set: images encoded on all cores in the manifest's order; a killed run is resumed."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image, features

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.core.io import resumable_folder
from dmlcore.data.dataset import CLASS_TEXTS, IMAGES, MANIFEST, SCHEMA_VERSION, SUMMARY, PreparedDataset
from dmlcore.data.manifest import OPTIONAL, SCHEMA, SPLITS, cross_class_duplicates, validate
from dmlcore.data.verification import csv_blocks, data_hash
from dmlcore.datasets.prepare.catalogue import Catalogue
from dmlcore.datasets.prepare.classes import Grouped, ordered_rows, regrouped, repack, without_lone_images
from dmlcore.datasets.prepare.encoding import (
    LAYOUTS,
    all_cores,
    encoder,
    ordered_map,
    stored_channels,
    with_progress,
)
from dmlcore.datasets.prepare.image_decoding import pillow_for_threads
from dmlcore.datasets.prepare.journal import Journal, unpack_hashes
from dmlcore.datasets.prepare.near_duplicates import LISTED, near_identical
from dmlcore.datasets.prepare.splits import describe_protocol

ENCODING_VERSION = 2
"""Raise it where the same image and settings give other bytes, so that no run resumes what older code has encoded."""

NO_IMAGE = {
    "split",
    "super_classes",
    "groups",
    "nested_folders",
    "merge_names",
    "on_duplicates",
    "max_broken_share",
    "lone_images",
}
"""Settings that change no stored image."""

PACKED = "packed.bin"
"""The images in the order of a split that was drawn anew."""


def prepare(
    name: str,
    catalogue: Catalogue,
    config: PreprocessConfig,
    folder: Path,
    *,
    raw: Path | None = None,
) -> None:
    """Split, encode and validate a data set; what a killed run has encoded is kept and resumed.

    Args:
        name: of the data set, as in params.yaml.
        catalogue: its images.
        config: its `preprocess` section.
        folder: written atomically; the same input gives the same bytes.
        raw: folder that the catalogue reads from: if it changes, a killed run's work is discarded.

    Raises:
        DataError: an image cannot be read, or the manifest breaks a rule; `folder` is left as it was.
    """
    catalogue = without_lone_images(catalogue, config)
    rows = ordered_rows(catalogue, config)
    _print(name, catalogue.notes)
    # What a DataError refuses is not kept: a resumed run would meet it again.
    with resumable_folder(folder, refused=DataError) as partial:
        (partial / PACKED).unlink(missing_ok=True)  # Of a killed run.
        journal = Journal(partial, IMAGES, fingerprint(rows, config, raw))
        encode_images(catalogue, config, rows, journal)
        found = regrouped(catalogue, config, rows, journal.table())
        manifest = build_manifest(found.rows, found.encoded)
        images = _in_order(partial, found)
        channels, size = stored_channels(catalogue, config), images.stat().st_size
        validate(manifest, config, channels=channels, size_bytes=size)
        content = io.BytesIO()  # polars itself calls a full disk a file out of specification
        manifest.write_parquet(content)
        (partial / MANIFEST).write_bytes(content.getvalue())
        texts = _json(catalogue.class_texts) if catalogue.class_texts else ""
        if texts:
            (partial / CLASS_TEXTS).write_text(texts, encoding="utf-8")
        summary = summarise(name, catalogue, config, manifest, found.encoded) | _noted(name, catalogue, found)
        summary["data_hash"] = data_hash(manifest, images, texts)
        (partial / SUMMARY).write_text(_json(summary), encoding="utf-8")
        # The journal first: without it a killed run starts anew, with it the images must be in the order of `rows`.
        journal.path.unlink()
        images.replace(partial / IMAGES)
        PreparedDataset.open(partial).split("test")  # The reader accepts it before it is published.


def _in_order(partial: Path, found: Grouped) -> Path:
    """Return the file of images in the order of the manifest."""
    if found.places is None:
        return partial / IMAGES
    repack(partial / IMAGES, partial / PACKED, found.places)
    return partial / PACKED


def fingerprint(rows: pl.DataFrame, config: PreprocessConfig, raw: Path | None) -> str:
    """Return the sha256 of all that the stored images depend on: their order, the settings, the raw files, the codec.

    Args:
        rows: of `ordered_rows`.
        config: the settings; those of splits and checks show in `rows` or change no image.
        raw: folder of the raw files, identified by name, size and modification time; None: not on disk.
    """
    settings = config.model_dump(exclude=NO_IMAGE)
    codec = [Image.__version__, features.version("libjpeg_turbo"), ENCODING_VERSION]
    # Not by content: hashing 120 GB takes minutes at every start.
    files = sorted(path for path in raw.rglob("*") if path.is_file()) if raw else []
    state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    digest = hashlib.sha256(json.dumps([settings, codec, state]).encode())
    for block in csv_blocks(rows):
        digest.update(block)
    return digest.hexdigest()


def encode_images(
    catalogue: Catalogue, config: PreprocessConfig, rows: pl.DataFrame, journal: Journal
) -> None:
    """Encode and append the images that the journal does not hold yet.

    Raises:
        DataError: more images are unreadable than `max_broken_share` allows.
    """
    items = (catalogue.items[item] for item in rows["item"].tail(rows.height - journal.count))
    broken, share, total = journal.broken, config.max_broken_share, rows.height
    with pillow_for_threads():
        encoded = ordered_map(encoder(catalogue, config), items, all_cores())
        for image in with_progress(journal.append(encoded), "encode", done=journal.count, total=total):
            broken += bool(image.error)
            if image.error and broken > share * total:
                raise DataError(
                    f"{image.error}; it is unreadable image {broken} of {total} images, "
                    f"`max_broken_share` {share} allows {int(share * total)}"
                )


def build_manifest(rows: pl.DataFrame, encoded: pl.DataFrame) -> pl.DataFrame:
    """Join `rows` with the journal's table, drop unreadable images, number the labels in order of class names."""
    # The journal is in the order of `rows`, one line per image, so that rows match by position.
    both = rows.hstack(encoded).filter(pl.col("error") == "")
    return both.with_columns(
        index=pl.int_range(pl.len(), dtype=pl.Int64),
        label=pl.col("class_name").rank("dense").cast(pl.Int64) - 1,
        offset=pl.col("length").cum_sum() - pl.col("length"),
    ).select([*SCHEMA, *(name for name in OPTIONAL if name in both.columns)])


def summarise(
    name: str, catalogue: Catalogue, config: PreprocessConfig, manifest: pl.DataFrame, encoded: pl.DataFrame
) -> dict[str, Any]:
    """Return what dataset.json says of a data set, without the data hash.

    Args:
        name: of the data set.
        catalogue: its images.
        config: its `preprocess` section.
        manifest: its rows.
        encoded: the journal's table, with the rows of unreadable images.
    """
    counts = {split: _counts(manifest.filter(split=split)) for split in SPLITS}
    broken, good = encoded.filter(pl.col("error") != ""), encoded.filter(error="")
    protocol = describe_protocol(config.split, [counts[split]["classes"] for split in SPLITS])
    if "group" in manifest.columns:
        protocol += f"; {manifest['group'].n_unique()} groups, no pair of one class within a group"
    drawings = config.encoding == "raw" and catalogue.channels == 1
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "description": catalogue.description,
        "licence": catalogue.licence,
        "protocol": protocol,
        "counts": counts | {"all": _counts(manifest)},
        "channels": stored_channels(catalogue, config),
        "image_size": config.image_size,
        "encoding": config.encoding,
        "layout": LAYOUTS[config.encoding],
        "unreadable": {"images": broken.height, "first": broken["error"].head(LISTED).to_list()},
        "duplicates": {
            "across_classes": cross_class_duplicates(manifest).height,
            "across_splits": manifest.filter(pl.col("split").n_unique().over("sha256") > 1).height,
            "within_a_class": manifest.filter(pl.struct("sha256", "label").is_duplicated()).height,
            "near_identical": near_identical(unpack_hashes(good), manifest, drawings=drawings),
        },
    }


def image_notes(rows: pl.DataFrame, encoded: pl.DataFrame) -> list[str]:
    """Return what images are noted for, each with their number and the names of the first."""
    noted = rows.hstack(encoded).filter(pl.col("note") != "").sort("note", "source")
    found = noted.group_by("note", maintain_order=True).agg(pl.len(), pl.col("source").head(LISTED))
    return [f"{count} image(s): {note}: {', '.join(map(repr, first))}" for note, count, first in found.rows()]


def _counts(manifest: pl.DataFrame) -> dict[str, int]:
    return {"classes": manifest["label"].n_unique(), "images": manifest.height}


def _noted(name: str, catalogue: Catalogue, found: Grouped) -> dict[str, list[str]]:
    """Print what the images are noted for; return all notes for the summary, nothing where there are none."""
    new = found.notes + image_notes(found.rows, found.encoded)
    _print(name, new)
    return {"notes": [*catalogue.notes, *new]} if new or catalogue.notes else {}


def _print(name: str, notes: Iterable[str]) -> None:
    for note in notes:
        print(f"{name}: {note}", file=sys.stderr)


def _json(values: object) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
