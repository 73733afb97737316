"""The trials of a study by key, and their stored embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dmlcore.cli.options import prepared_folder

if TYPE_CHECKING:
    from dmlcore.records import TrialRecord
    from dmlcore.training.store import TrialStore


def finished_trial(study: Path, key: str) -> tuple[TrialRecord, TrialStore]:
    """The finished trial whose key is, or alone starts with, `key`, and where its files lie.

    Raises:
        ValueError: no such trial, several, an unfinished one, or its files are gone.
    """
    from dmlcore.records import RecordFolder
    from dmlcore.training.load import store_of

    study = study.resolve()
    folder = RecordFolder(study / "state" / "records")
    keys = [path.stem for path in sorted(folder.folder.glob(f"{_plain(key)}*.json"))]
    if len(keys) != 1:
        listed = f"these do: {', '.join(keys[:5])}" if keys else "none does; `dmlcore plan` lists them"
        raise ValueError(
            f"the key of a trial must start that of one in {folder.folder}, got {key!r}: {listed}"
        )
    record = folder.read(keys[0])
    if record is None or record.status != "finished":
        raise ValueError(f"trial {keys[0]} must be finished, it is {record.status if record else 'missing'}")
    return record, store_of(study, record)


def class_names(study: Path, record: TrialRecord, split: str) -> tuple[str, ...] | None:
    """Names of the classes of a split, label by label; None where the data set is not prepared on this machine."""
    from dmlcore.data.dataset import PreparedDataset

    try:
        dataset = PreparedDataset.open(prepared_folder(study.resolve()) / record.config["dataset"])
    except (ValueError, OSError):
        return None
    return dataset.split(split).class_names if dataset.data_hash == record.hashes.get("data") else None


def _plain(key: str) -> str:
    """A key without the marks of a glob pattern."""
    return "".join(character for character in key if character.isalnum() or character in "-_")
