"""The images of a catalogue in the manifest's order, encoded on all cores into one file; a killed run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image, features

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.core.io import resumable_folder
from dmlcore.data.dataset import CLASS_TEXTS, IMAGES, MANIFEST, SUMMARY, PreparedDataset
from dmlcore.data.manifest import SCHEMA, SPLITS, validate
from dmlcore.datasets.acquire.image_decoding import decoding
from dmlcore.datasets.prepare.catalogue import Catalogue
from dmlcore.datasets.prepare.encoding import Encoded, encoder, stored_channels
from dmlcore.datasets.prepare.journal import Journal
from dmlcore.datasets.prepare.parallel import all_cores, ordered_map, shown
from dmlcore.datasets.prepare.splits import assign_splits
from dmlcore.datasets.prepare.summary import summarise

ENCODING_VERSION = 1
"""To be raised where the same image and settings give other bytes: unfinished work of the older code is not gone on."""


SLICE = 1 << 16
"""Rows of a table that are text at once."""


def ordered_rows(catalogue: Catalogue, config: PreprocessConfig) -> pl.DataFrame:
    """The manifest's columns that are known before an image is read, and `place`, the item's number in the catalogue.

    Raises:
        DataError: no images, or a split rule that does not suit them.
    """
    if not catalogue.items:
        raise DataError("the data set has no images; look at its `source`")
    rows = pl.DataFrame({"split": assign_splits(catalogue.items, config.split)}).with_row_index("place")
    for column in ("class_name", "super_class", "role", "source"):
        values = pl.Series(column, [getattr(item, column) for item in catalogue.items], pl.String())
        rows = rows.with_columns(values)
    return rows.sort(pl.col("split").cast(pl.Enum(SPLITS)), "class_name", "source")


def fingerprint(rows: pl.DataFrame, config: PreprocessConfig, raw: Path | None) -> str:
    """Sha256 of all that the stored images depend on: their order, the settings, the raw files, the codec.

    Args:
        rows: as `ordered_rows` gave them.
        config: the settings; those of splits and checks show in `rows` or change no image.
        raw: folder of the raw files, known by name, size and time of change; None: not on disk.
    """
    settings = config.model_dump(exclude={"split", "super_classes", "on_duplicates", "max_broken_share"})
    codec = [Image.__version__, features.version("libjpeg_turbo"), ENCODING_VERSION]
    digest = hashlib.sha256(json.dumps([settings, codec, _raw_state(raw)]).encode())
    for block in csv_blocks(rows):
        digest.update(block)
    return digest.hexdigest()


def csv_blocks(table: pl.DataFrame) -> Iterator[bytes]:
    """`table.write_csv()` in blocks, so that a million rows are never one text."""
    for number, block in enumerate(table.iter_slices(SLICE)):
        yield block.write_csv(include_header=number == 0).encode()


def pack(catalogue: Catalogue, config: PreprocessConfig, rows: pl.DataFrame, journal: Journal) -> None:
    """Append the images that the journal does not hold yet.

    Raises:
        DataError: more images are unreadable than `max_broken_share` allows.
    """
    places = rows["place"].tail(rows.height - journal.count)
    items = (catalogue.items[place] for place in places)
    with decoding():
        encoded = ordered_map(encoder(catalogue, config), items, all_cores())
        written = shown(journal.append(encoded), "pack", done=journal.count, total=rows.height)
        _refuse_broken(written, journal.broken, config.max_broken_share, rows.height)


def manifest_of(rows: pl.DataFrame, packed: pl.DataFrame) -> pl.DataFrame:
    """The manifest: `rows` beside the journal's table, without unreadable images; labels in order of class names."""
    both = rows.hstack(packed).filter(pl.col("error") == "")
    return both.with_columns(
        index=pl.int_range(pl.len(), dtype=pl.Int64),
        label=pl.col("class_name").rank("dense").cast(pl.Int64) - 1,
        offset=pl.col("length").cum_sum() - pl.col("length"),
    ).select(list(SCHEMA))


def _refuse_broken(images: Iterable[Encoded], broken: int, share: float, total: int) -> None:
    for image in images:
        broken += bool(image.error)
        if image.error and broken > share * total:
            raise DataError(
                f"{image.error}; it is unreadable image {broken} of {total} images, "
                f"`max_broken_share` {share} allows {int(share * total)}"
            )


def _raw_state(raw: Path | None) -> list[tuple[str, int, int]]:
    files = sorted(path for path in raw.rglob("*") if path.is_file()) if raw else []
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def prepare(
    name: str,
    catalogue: Catalogue,
    config: PreprocessConfig,
    folder: Path,
    *,
    raw: Path | None = None,
) -> None:
    """Read, split, pack and validate a data set; what a killed run has packed is gone on with.

    Args:
        name: of the data set, as in params.yaml.
        catalogue: its images.
        config: its `preprocess` section.
        folder: written whole or not at all; the same input gives the same bytes.
        raw: folder that the catalogue reads from: where it changes, a killed run's work is worth nothing.

    Raises:
        DataError: an image cannot be read, or the manifest breaks a rule; `folder` is left as it was.
    """
    rows = ordered_rows(catalogue, config)
    with resumable_folder(folder, refused=DataError) as partial:
        journal = Journal(partial, IMAGES, fingerprint(rows, config, raw))
        pack(catalogue, config, rows, journal)
        packed = journal.table()
        manifest = manifest_of(rows, packed)
        size = (partial / IMAGES).stat().st_size
        validate(manifest, config, channels=stored_channels(catalogue, config), size_bytes=size)
        summary = summarise(name, catalogue, config, manifest, packed)
        _describe(partial, manifest, summary, catalogue.class_texts)
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
) -> None:
    """Write manifest, class texts, summary, data and data hash beside the packed images."""
    manifest.write_parquet(folder / MANIFEST)
    texts = _json(class_texts) if class_texts else ""
    if texts:
        (folder / CLASS_TEXTS).write_text(texts, encoding="utf-8")
    summary = {**summary, "data_hash": data_hash(manifest, folder / IMAGES, texts)}
    _write_summary(folder, summary)
    PreparedDataset.open(folder).split("test")  # readable as a whole before it is published


def _write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    (folder / SUMMARY).write_text(_json(summary), encoding="utf-8")


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
