"""The data sets of `data/params.yaml`: how large, under which licence, from where, and what of each is here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmlcore.config import DatasetConfig, load_datasets
from dmlcore.data.archives import best_form, missing, places
from dmlcore.data.pack import PACK
from dmlcore.data.packed import SUMMARY
from dmlcore.data.sources import Archive, Counts, Source, read_source

LOCAL = {
    "glyphs": ("Bitstream Vera / DejaVu and STIX font licences", "the fonts inside matplotlib"),
    "image_folder": ("the user's own", "the user's own folder"),
}
"""Licence and origin of the kinds that come in no archive."""
NOT_MADE = ("as its source will say", "as its source will say")
"""Licence and origin of a generated data set before it is generated."""


@dataclass(frozen=True)
class Listed:
    name: str
    counts: Counts | None
    """None: known once it is prepared."""
    licence: str
    origin: str
    here: str
    """`prepared`, `downloaded`, `archives`, or what is missing."""


def list_datasets(data: Path) -> list[Listed]:
    """All data sets of a checkout, in the order of its params.

    Args:
        data: the folder of params.yaml, raw/ and prepared/.

    Raises:
        ConfigError: params.yaml or a source breaks its schema.
        DataError: a source cannot be read.
    """
    datasets = load_datasets(data / "params.yaml").datasets
    return [_listed(data, name, dataset) for name, dataset in datasets.items()]


def _listed(data: Path, name: str, dataset: DatasetConfig) -> Listed:
    summary = _read(data / "prepared" / name / SUMMARY)
    if dataset.kind in LOCAL:
        counts = Counts(**summary["counts"]["all"]) if summary else None
        return Listed(name, counts, *LOCAL[dataset.kind], "prepared" if summary else "made by `dvc repro`")
    if not (data / dataset.source).exists():
        return Listed(
            name, None, *NOT_MADE, f"missing: {dataset.source} (by `dvc repro`, or the path is wrong)"
        )
    source = read_source(data / dataset.source)
    parts = source.expected.values()
    counts = Counts(classes=sum(part.classes for part in parts), images=sum(part.images for part in parts))
    here = "prepared" if summary else _state(data, name, dataset, source)
    return Listed(name, counts, source.licence, source.origin, here)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _state(data: Path, name: str, dataset: DatasetConfig, source: Source) -> str:
    if (data / "raw" / name / PACK).is_file():
        return "downloaded"
    folders = [data / folder for folder in places(dataset.archives)]
    absent = missing(best_form(source, folders), folders)
    return "missing: " + ", ".join(map(_absent, absent)) if absent else "archives"


def _absent(archive: Archive) -> str:
    size = f"{archive.size_bytes / 1e6:,.0f} MB, " if archive.size_bytes else ""
    package = f"package {archive.package.split('/')[0]}" if archive.package else "by hand"
    return f"{archive.file} ({size}{'download' if archive.urls else package})"
