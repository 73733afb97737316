"""Run trials on nodes that cannot read the driver's disk, with shared storage for inputs, checkpoints and results.

The driver calls `sync_with_nodes` and `download_results`, a worker `run_remote`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from dmlcore.data.dataset import PreparedDataset
from dmlcore.models.weights import PACKAGE, local_file
from dmlcore.records import (
    RecordFolder,
    TrialRecord,
    record_text,
)
from dmlcore.sweep.execution.trial_log import log_file
from dmlcore.sweep.execution.worker import WorkerContext, execute
from dmlcore.sweep.file_store import SharedStorageError
from dmlcore.sweep.plan import CANCELLED, PlannedTrial
from dmlcore.sweep.ray.arrivals import (
    DATA_FILES,
    LAST,
    RESULTS,
    FileSync,
    SendingStore,
    fetch_data,
    fetch_weights,
    record_left,
)
from dmlcore.sweep.ray.shared_storage import SharedStorage
from dmlcore.training.checkpoint import EpochReport
from dmlcore.training.run import TrialResult
from dmlcore.training.store import TrialStore

# ------------------------------------------------------------------------------------------- the driver


def sync_with_nodes(
    trials: list[PlannedTrial], storage: SharedStorage, records: RecordFolder
) -> list[PlannedTrial]:
    """Download what finished without a driver; upload the inputs of the other trials and return these."""
    remaining = []
    for trial in trials:
        record = download_results(trial, storage, records)
        if record is None or not trial.is_complete(record):
            remaining.append(trial)
    upload_inputs(remaining, storage)
    return remaining


def upload_inputs(trials: list[PlannedTrial], storage: SharedStorage) -> None:
    """Upload data sets, local weights, and the checkpoints that trials resume from."""
    for folder in sorted({trial.data_folder for trial in trials}):
        files = sorted(path for path in folder.iterdir() if path.name in DATA_FILES and path.is_file())
        storage.put_folder(files, f"data/{PreparedDataset.open(folder).data_hash}")
    for trial in trials:
        weights = weights_file(trial)
        if weights is not None:
            name = f"{trial.keys.inputs['weights']}{weights.suffix}"
            if name not in storage.names("weights"):
                storage.put(weights, f"weights/{name}")
        # A checkpoint in shared storage was uploaded by a node and is at least as recent as the driver's.
        if TrialStore(trial.store_folder).path("last").is_file():
            sync = FileSync(trial, storage)
            if LAST not in storage.names(sync.folder):
                sync.send()


def weights_file(trial: PlannedTrial) -> Path | None:
    """Return the local weights file of a trial; None if it has none, or its weights are installed with a package."""
    weights = trial.cell.config.model.backbone.weights
    return None if weights is None or weights.startswith(PACKAGE) else local_file(weights)


def download_results(
    trial: PlannedTrial, storage: SharedStorage, records: RecordFolder
) -> TrialRecord | None:
    """Move a trial's record and files from shared storage to the study's folder.

    Returns:
        The record; None if there is none, or its files do not match their checksums. The trial then runs again.
    """
    # A separate folder: files replace those of the trial only after they were verified.
    incoming = replace(
        trial, store_folder=trial.store_folder.with_name(f"{trial.store_folder.name}.incoming")
    )
    shutil.rmtree(incoming.store_folder, ignore_errors=True)
    sync = FileSync(incoming, storage)
    record = record_left(incoming, storage, sync)
    if record is not None:
        for file in incoming.store_folder.glob("*"):
            trial.store_folder.mkdir(parents=True, exist_ok=True)
            file.replace(trial.store_folder / file.name)
        # Write the record before removing the remote files: if the driver is killed in between, this is repeated.
        records.write(record)
        if record.done and record.error_type != CANCELLED:
            storage.remove(sync.folder)
        storage.remove(f"records/{trial.key}.json")
    shutil.rmtree(incoming.store_folder, ignore_errors=True)
    return record


def download_log(trial: PlannedTrial, storage: SharedStorage, state: Path, done: bool) -> None:
    """Copy the log of a trial that has ended to the study's folder; if `done`, remove it from shared storage."""
    name = f"logs/{trial.key}.log"
    with suppress(OSError, SharedStorageError):
        if storage.at_once.get(name, log_file(state, trial.key)) and done:
            storage.at_once.remove(name)


# ------------------------------------------------------------------------------------------- the worker


LOG_SECONDS = 10.0
"""Minimum time between two uploads of a trial's log."""


def run_remote(
    trial: PlannedTrial, context: WorkerContext, report: Callable[[EpochReport], None], storage: SharedStorage
) -> TrialRecord:
    """Run `execute` on this node's disk: download the inputs first, upload checkpoints and the record.

    Raises:
        SharedStorageError, OSError: a download or an upload failed.
    """
    home = scratch(storage.address)
    # `execute` locks the training only; a worker whose driver was killed may still be uploading.
    with FileLock(home / "locks" / f"{trial.key}.remote"):
        local = localize(trial, home, storage)
        # Resume from shared storage only: files on this disk may be older than those of another node.
        shutil.rmtree(local.store_folder, ignore_errors=True)
        sync = FileSync(local, storage)
        sync.fetch((*RESULTS, LAST))
        records = RecordFolder(home / "records")
        # If an earlier attempt uploaded a record, `execute` returns it at once.
        records.path(trial.key).unlink(missing_ok=True)
        earlier = record_left(local, storage, sync)
        if earlier is not None:
            records.write(earlier)

        def upload_and_report(epoch: EpochReport) -> None:
            sync.try_to_send()  # again, where a checkpoint could not be sent when it was written
            report(epoch)

        run = partial(_run_sending, sync, context.run)
        record = execute(local, replace(context, state=home, run=run), upload_and_report)
        # Upload the record last: the driver treats a trial as complete when it finds its record.
        sync.send()
        storage.write(f"records/{trial.key}.json", record_text(record).encode())
        records.path(trial.key).unlink(missing_ok=True)
        shutil.rmtree(local.store_folder, ignore_errors=True)
    return record


def _run_sending(
    sync: FileSync, run: Callable[..., TrialResult], *arguments: Any, store: TrialStore, **named: Any
) -> TrialResult:
    """Run a trial as `run` does, its checkpoints sent as they are written."""
    return run(*arguments, store=SendingStore(store, sync), **named)


class LogSync:
    """The log file of a trial on this node and its copy in shared storage. A failed copy does not fail the trial.

    Args:
        trial_key: of the trial.
        state: the study's state folder.
        storage: None if the nodes share the driver's disk; the log file is then in the study's folder.
    """

    def __init__(self, trial_key: str, state: Path, storage: SharedStorage | None) -> None:
        self.storage, self.name = storage, f"logs/{trial_key}.log"
        self.file = log_file(scratch(storage.address) if storage else state, trial_key)
        self._sent = 0.0

    def __enter__(self) -> LogSync:
        if self.storage is not None:
            # Continue the log of the latest attempt, on whichever node it ran.
            with suppress(OSError, SharedStorageError):
                self.file.unlink(missing_ok=True)
                self.storage.at_once.get(self.name, self.file)
        return self

    def __exit__(self, *error: object) -> None:
        self.try_to_send(0.0)

    def try_to_send(self, interval: float = LOG_SECONDS) -> None:
        """Upload the log file, unless that was done less than `interval` seconds ago."""
        if self.storage is not None and time.monotonic() - self._sent >= interval:
            with suppress(OSError, SharedStorageError):
                self.storage.at_once.put(self.file, self.name)
            self._sent = time.monotonic()


def scratch(address: str) -> Path:
    """Return this node's local folder for a shared storage, in DMLCORE_SCRATCH or the temporary folder.

    Raises:
        SharedStorageError: the folder belongs to another user.
    """
    base = Path(os.environ.get("DMLCORE_SCRATCH", tempfile.gettempdir())) / f"dmlcore-{os.getuid()}"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Any user can write to the temporary folder and may have created this name first, as a folder or a symlink.
    status = base.lstat()
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
        raise SharedStorageError(f"{base} must be a folder of this user; remove it or set DMLCORE_SCRATCH")
    home = base / hashlib.sha256(address.encode()).hexdigest()[:16]
    (home / "locks").mkdir(parents=True, exist_ok=True)
    return home


def localize(trial: PlannedTrial, home: Path, storage: SharedStorage) -> PlannedTrial:
    """Download a trial's data and weights, and return the trial with its paths on this node.

    All workers of a node share both; a lock lets one of them download while the others wait.
    """
    data_hash = trial.keys.inputs["data"]
    data_folder = home / "data" / data_hash / trial.data_folder.name
    with FileLock(home / "locks" / f"{data_hash}.data"):
        fetch_data(data_hash, data_folder, home, storage)
    weights = None
    if trial.weights is not None:
        weights = home / "weights" / f"{trial.keys.inputs['weights']}{trial.weights.suffix}"
        with FileLock(home / "locks" / f"{weights.name}.weights"):
            fetch_weights(weights, trial.keys.inputs["weights"], storage)
    store_folder = home / "storage" / trial.store_folder.name
    return replace(trial, data_folder=data_folder, store_folder=store_folder, weights=weights)
