"""What several subcommands share: exit codes, options, and the files of a study and its trials."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dmlcore.extras import require

if TYPE_CHECKING:
    from dmlcore.records import TrialRecord
    from dmlcore.training.store import TrialStore

INCOMPLETE, WRONG_INPUT, DEFECT = 1, 2, 3
"""Exit codes: done except for what is named; a wrong argument or file; a defect of dmlcore."""

Study = Annotated[Path, typer.Option(help="Folder of the study, with params.yaml in it.", resolve_path=True)]
"""Absolute: trials find their files from any working directory."""
Memory = Annotated[str, typer.Option(help="Bound on the working memory: bytes, or as 500MiB.")]
UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_memory(text: str) -> int:
    """Parse `--memory`: a number of bytes, with or without a unit, as `1GiB`.

    Raises:
        ValueError: it is something else, or too little to work in.
    """
    from dmlcore.metrics.inputs import SMALLEST_MEMORY

    found = re.fullmatch(r" *([0-9]{1,18}(?:\.[0-9]{1,9})?) *([A-Za-z]*) *", text)
    if found is None or found[2].upper() not in UNITS:
        raise ValueError(f"--memory must be a number of bytes, as 500MiB or 2GiB, got {text!r:.80}")
    parsed = int(float(found[1]) * UNITS[found[2].upper()])
    if parsed < SMALLEST_MEMORY:
        raise ValueError(f"--memory must be at least {SMALLEST_MEMORY >> 20}MiB, got {text!r:.80}")
    return parsed


def check_plot(path: Path | None) -> None:
    """Refuse a plot that could not be written before anything is computed.

    Raises:
        ValueError: its name ends in something else than .png.
        MissingExtraError: matplotlib is not installed.
    """
    if path is None:
        return
    if path.suffix.lower() != ".png":
        raise ValueError(f"--plot must end in .png, the one format that is written, got {path}")
    require("plot", "--plot")


def prepared_folder(study: Path) -> Path:
    """Return `data/prepared` of the checkout that holds the study.

    Raises:
        FileNotFoundError: neither the study nor a folder above it has a data/dvc.yaml.
    """
    for folder in (study, *study.parents):
        if (folder / "data" / "dvc.yaml").is_file():
            return folder / "data" / "prepared"
    raise FileNotFoundError(f"no data/dvc.yaml in {study} or above it; move the study into a checkout")


def finished_trial(study: Path, key: str) -> tuple[TrialRecord, TrialStore]:
    """Find the finished trial whose key starts with `key`, and its files.

    Raises:
        ValueError: no such trial, several, an unfinished one, or its files are gone.
        MissingExtraError: the libraries that read a study are not installed.
    """
    require("train", "--trial")
    from dmlcore.records import RecordFolder
    from dmlcore.training.load import store_of

    records = RecordFolder(study / "state" / "records")
    keys = [found for found in records.keys() if found.startswith(key)]  # noqa: SIM118 (no mapping)
    if not keys:
        raise ValueError(f"no trial key in {records.folder} starts with {key!r}; `dmlcore plan` lists them")
    if len(keys) > 1:
        listed = ", ".join(keys[:5])
        raise ValueError(
            f"{len(keys)} trial keys in {records.folder} start with {key!r}: {listed}; give more of it"
        )
    record = records.read(keys[0])
    if record is None or record.status != "finished":
        raise ValueError(f"trial {keys[0]} must be finished, it is {record.status if record else 'missing'}")
    return record, store_of(study, record)


def split_class_names(study: Path, record: TrialRecord, split: str) -> tuple[str, ...] | None:
    """Return the class names of a split by label; None if the trial's data set is not prepared on this machine."""
    from dmlcore.data.dataset import PreparedDataset

    try:
        dataset = PreparedDataset.open(prepared_folder(study) / record.config["dataset"])
    except (ValueError, OSError):
        return None
    return dataset.split(split).class_names if dataset.data_hash == record.hashes.get("data") else None
