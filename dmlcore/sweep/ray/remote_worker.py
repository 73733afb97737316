"""Trials on nodes without the driver's disk: inputs and checkpoints come from shared storage, results go there.

The driver calls `sync_with_nodes` and `download_results`, a worker `run_remote`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from dmlcore.data.dataset import PreparedDataset
from dmlcore.models.weights import PACKAGE, local_file
from dmlcore.records import RecordError, RecordFolder, TrialRecord, parse_record, record_text
from dmlcore.sweep.execution.worker import ATTEMPTS, WorkerContext, execute
from dmlcore.sweep.plan import PlannedTrial
from dmlcore.sweep.ray.shared_storage import SharedStorage, SharedStorageError
from dmlcore.training.checkpoint import EpochReport
from dmlcore.training.store import TrialStore

logger = logging.getLogger(__name__)
RESULTS = (ATTEMPTS, "best.safetensors", "final.safetensors", "validation.safetensors", "test.safetensors")
LAST = "last.safetensors"
"""The checkpoint to resume from. It is sent after RESULTS, since it refers to `best`."""


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
        files = sorted(path for path in folder.iterdir() if path.is_file())
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
    name = f"records/{trial.key}.json"
    content = storage.read(name)
    if content is None:
        return None
    try:
        record = parse_record(content, trial.key)
    except RecordError as error:
        logger.warning("%s/%s %s: removed", storage.address, name, error)
        storage.remove(name)
        return None
    sync = FileSync(trial, storage)
    if record.status == "finished":
        sync.fetch(RESULTS)
        if not TrialStore(trial.store_folder).matches(record.files):
            text = "%s/%s does not hold the files of record %s: record removed"
            logger.warning(text, storage.address, sync.folder, trial.key)
            storage.remove(name)
            return None
    # The record is written here before anything is removed there: a driver that is killed in between repeats this.
    records.write(record)
    if record.done:
        storage.remove(sync.folder)
    storage.remove(name)
    return record


# ------------------------------------------------------------------------------------------- the worker


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
        storage.get(f"records/{trial.key}.json", records.path(trial.key))

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
        storage.get_folder(f"data/{data_hash}", data_folder)
    weights = None
    if trial.weights is not None:
        weights = home / "weights" / f"{trial.keys.inputs['weights']}{trial.weights.suffix}"
        with FileLock(home / "locks" / f"{weights.name}.weights"):
            if not weights.is_file() and not storage.get(f"weights/{weights.name}", weights):
                raise SharedStorageError(
                    f"{storage.address}: weights/{weights.name} is missing; run the stage again"
                )
    store_folder = home / "storage" / trial.store_folder.name
    return replace(trial, data_folder=data_folder, store_folder=store_folder, weights=weights)


@dataclass
class FileSync:
    """Copies the files of one trial between its store folder and shared storage."""

    trial: PlannedTrial
    storage: SharedStorage

    def __post_init__(self) -> None:
        self.folder = f"storage/{self.trial.store_folder.name}"
        self.synced: dict[str, tuple[int, int]] = {}
        """File name -> size and time of the version that both sides have."""

    def fetch(self, names: tuple[str, ...]) -> None:
        """Download the files among `names` that are there."""
        for name in self.storage.names(self.folder):
            if name in names:
                self.storage.get(f"{self.folder}/{name}", self.trial.store_folder / name)
                self.synced[name] = self._version(name)

    def send(self) -> None:
        """Upload each file that changed since it was sent or fetched, the checkpoint to resume from last."""
        for name in (*RESULTS, LAST):
            version = self._version(name)
            if version not in ((0, 0), self.synced.get(name)):
                self.storage.put(self.trial.store_folder / name, f"{self.folder}/{name}")
                self.synced[name] = version

    def try_to_send(self) -> None:
        """Upload a new checkpoint. A failure costs nothing but this one: the next epoch tries again."""
        try:
            if self._version(LAST) != self.synced.get(LAST, (0, 0)) or not self.synced:
                self.send()
        except (OSError, SharedStorageError) as error:
            logger.warning("%s: checkpoint not sent: %s", self.trial.name, error)

    def _version(self, name: str) -> tuple[int, int]:
        """Return size and time of a local file; (0, 0) if it does not exist."""
        try:
            status = (self.trial.store_folder / name).stat()
        except FileNotFoundError:
            return 0, 0
        return status.st_size, status.st_mtime_ns
