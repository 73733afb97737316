"""Trials on nodes without the driver's disk: inputs and checkpoints come from shared storage, results go there.

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
from pathlib import Path

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
from dmlcore.sweep.plan import CANCELLED, PlannedTrial
from dmlcore.sweep.ray.arrivals import (
    DATA_FILES,
    LAST,
    RESULTS,
    FileSync,
    fetch_data,
    fetch_weights,
    record_left,
)
from dmlcore.sweep.ray.shared_storage import SharedStorage, SharedStorageError
from dmlcore.training.checkpoint import EpochReport
from dmlcore.training.store import TrialStore

# ------------------------------------------------------------------------------------------- the driver


def sync_with_nodes(
    trials: list[PlannedTrial], storage: SharedStorage, records: RecordFolder
) -> list[PlannedTrial]:
    """Download what nodes finished without a driver, upload what the other trials need, and return these."""
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
        # A checkpoint that is there already is that of a node, and no older than the driver's.
        if TrialStore(trial.store_folder).path("last").is_file():
            sync = FileSync(trial, storage)
            if LAST not in storage.names(sync.folder):
                sync.send()


def weights_file(trial: PlannedTrial) -> Path | None:
    """Return the weights file that a trial names by its path; those of a package are on each node with it."""
    weights = trial.cell.config.model.backbone.weights
    return None if weights is None or weights.startswith(PACKAGE) else local_file(weights)


def download_results(
    trial: PlannedTrial, storage: SharedStorage, records: RecordFolder
) -> TrialRecord | None:
    """Move the record and files that a node left of a trial to the study's folder.

    Returns:
        The record; None if there is none, or its files do not have the checksums that it names: the trial runs again.
    """
    # Beside the trial's own folder: what is not verified yet replaces nothing.
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
        # The record is written here before anything is removed there: a driver that is killed in between repeats this.
        records.write(record)
        if record.done and record.error_type != CANCELLED:
            storage.remove(sync.folder)
        storage.remove(f"records/{trial.key}.json")
    shutil.rmtree(incoming.store_folder, ignore_errors=True)
    return record


def download_log(trial: PlannedTrial, storage: SharedStorage, state: Path, done: bool) -> None:
    """Copy the output of a trial that has ended to the study; that of a failed one stays for its next attempt."""
    name = f"logs/{trial.key}.log"
    with suppress(OSError, SharedStorageError):
        if storage.get(name, log_file(state, trial.key)) and done:
            storage.remove(name)


# ------------------------------------------------------------------------------------------- the worker


LOG_SECONDS = 10.0
"""A trial's output is uploaded at most this often."""


def run_remote(
    trial: PlannedTrial, context: WorkerContext, report: Callable[[EpochReport], None], storage: SharedStorage
) -> TrialRecord:
    """Run a trial as `execute` does, on this node's own disk: download inputs, upload checkpoints and the record.

    Raises:
        SharedStorageError, OSError: the inputs could not be downloaded, or the results not be uploaded.
    """
    home = scratch(storage.address)
    # A lock besides that of `execute`, which covers the training alone: an orphan may still be uploading.
    with FileLock(home / "locks" / f"{trial.key}.remote"):
        local = localize(trial, home, storage)
        # Only what an earlier attempt uploaded counts. This disk may hold the files of one that another node overtook.
        shutil.rmtree(local.store_folder, ignore_errors=True)
        sync = FileSync(local, storage)
        sync.fetch((*RESULTS, LAST))
        records = RecordFolder(home / "records")
        # A record that an earlier attempt uploaded ends this one at once.
        records.path(trial.key).unlink(missing_ok=True)
        earlier = record_left(local, storage, sync)
        if earlier is not None:
            records.write(earlier)

        def upload_and_report(epoch: EpochReport) -> None:
            sync.try_to_send()
            report(epoch)

        record = execute(local, replace(context, state=home), upload_and_report)
        # The record goes last: the driver takes a trial whose record it finds for complete.
        sync.send()
        storage.write(f"records/{trial.key}.json", record_text(record).encode())
        records.path(trial.key).unlink(missing_ok=True)
        shutil.rmtree(local.store_folder, ignore_errors=True)
    return record


class LogSync:
    """The file of a trial's output on this node, and its copy in shared storage, in which no failure is a trial's.

    Args:
        trial_key: of the trial.
        state: the study's state folder.
        storage: None: the nodes share the driver's disk, and the file is in the study.
    """

    def __init__(self, trial_key: str, state: Path, storage: SharedStorage | None) -> None:
        self.storage, self.name = storage, f"logs/{trial_key}.log"
        self.file = log_file(scratch(storage.address) if storage else state, trial_key)
        self._sent = 0.0

    def __enter__(self) -> LogSync:
        if self.storage is not None:
            # That of an earlier attempt on any node; what this disk holds of another is older.
            with suppress(OSError, SharedStorageError):
                self.file.unlink(missing_ok=True)
                self.storage.get(self.name, self.file)
        return self

    def __exit__(self, *error: object) -> None:
        self.try_to_send(0.0)

    def try_to_send(self, apart: float = LOG_SECONDS) -> None:
        """Upload the file, unless it was sent less than `apart` seconds ago."""
        if self.storage is not None and time.monotonic() - self._sent >= apart:
            with suppress(OSError, SharedStorageError):
                self.storage.put(self.file, self.name)
            self._sent = time.monotonic()


def scratch(address: str) -> Path:
    """Return this node's folder for the storage at `address`, in DMLCORE_SCRATCH or the temporary folder.

    Raises:
        SharedStorageError: the folder belongs to another user.
    """
    base = Path(os.environ.get("DMLCORE_SCRATCH", tempfile.gettempdir())) / f"dmlcore-{os.getuid()}"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The temporary folder is writable by all: another user may have made this name first, or linked it elsewhere.
    status = base.lstat()
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
        raise SharedStorageError(f"{base} must be a folder of this user; remove it or set DMLCORE_SCRATCH")
    home = base / hashlib.sha256(address.encode()).hexdigest()[:16]
    (home / "locks").mkdir(parents=True, exist_ok=True)
    return home


def localize(trial: PlannedTrial, home: Path, storage: SharedStorage) -> PlannedTrial:
    """Download a trial's data and weights and return it with its paths on this node.

    The workers of a node share both: a lock lets one of them download and the others wait.
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
