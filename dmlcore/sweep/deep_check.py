"""The deep check of a study: every file of its trials and data sets against the checksum that was taken of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dmlcore.core.errors import DataError
from dmlcore.data.dataset import PreparedDataset
from dmlcore.data.verification import verify
from dmlcore.records import TrialRecord
from dmlcore.sweep.plan import Plan
from dmlcore.training.store import TrialStore


def deep_faults(plan: Plan, *, storage: Path, prepared: Path) -> Iterator[str]:
    """Yield a line for each data set that was changed, and each stored file that is gone or was changed.

    Args:
        plan: of the study.
        storage: the folder of checkpoints and embeddings.
        prepared: the folder of prepared data sets.
    """
    for name in plan.datasets:
        try:
            verify(PreparedDataset.open(prepared / name))
        except DataError as error:
            yield f"DAMAGED data set {name}: {error}"
    for record in plan.recorded:
        if record.status == "finished":
            yield from _file_faults(record, TrialStore(storage / record.train_key[:16]))


def _file_faults(record: TrialRecord, store: TrialStore) -> Iterator[str]:
    if not record.files:
        yield f"GONE {record.trial_key} {record.name}: its record names no stored files"
    for name, digest in record.files.items():
        path = store.path(name)
        if not path.is_file():
            yield f"GONE {record.trial_key} {record.name}: {path}"
        elif not store.matches({name: digest}):
            yield f"DAMAGED {record.trial_key} {record.name}: {path} does not have the sha256 of its record"
