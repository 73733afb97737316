"""A trial on a node that does not share the driver's disk: what it needs is brought, what it leaves is sent back."""

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
from pydantic import ValidationError

from dmlcore.data.dataset import PreparedDataset
from dmlcore.models.weights import PACKAGE, local_file
from dmlcore.records import RecordFolder, TrialRecord
from dmlcore.sweep.execution.worker import ATTEMPTS, WorkerContext, execute
from dmlcore.sweep.plan import PlannedTrial
from dmlcore.sweep.ray.shared_storage import SharedStorage, SharedStorageError
from dmlcore.training.run import EpochReport
from dmlcore.training.store import TrialStore

logger = logging.getLogger(__name__)
SENT = (ATTEMPTS, "best.safetensors", "final.safetensors", "validation.safetensors", "test.safetensors")


LAST = "last.safetensors"
"""Sent after what it refers to."""


def offer(trials: list[PlannedTrial], exchange: SharedStorage) -> None:
    """Put into the exchange what trials need: data sets, local weights, and the checkpoints to go on from."""
    for folder in sorted({trial.data_folder for trial in trials}):
        files = sorted(path for path in folder.iterdir() if path.is_file())
        exchange.put_folder(files, f"data/{PreparedDataset.open(folder).data_hash}")
    for trial in trials:
        _offer_weights(trial, exchange)
        here = TrialStore(trial.store_folder)
        if here.path("last").is_file() and LAST not in exchange.names(f"storage/{trial.keys.train[:16]}"):
            FileSync(trial, exchange).send()


def _offer_weights(trial: PlannedTrial, exchange: SharedStorage) -> None:
    file = weights_file(trial)
    if file is not None:
        name = f"{trial.keys.inputs['weights']}{file.suffix}"
        if name not in exchange.names("weights"):
            exchange.put(file, f"weights/{name}")


def weights_file(trial: PlannedTrial) -> Path | None:
    """The local file of weights that a trial names by its path; a package's is on each node as the package is."""
    weights = trial.cell.config.model.backbone.weights
    return None if weights is None or weights.startswith(PACKAGE) else local_file(weights)


def download_results(
    trial: PlannedTrial, exchange: SharedStorage, records: RecordFolder
) -> TrialRecord | None:
    """Bring the record and files that a node left of a trial into the study's folder, then remove them there.

    Returns:
        The record; None where there is none, or its files do not have the checksums that it names: the trial is to be
        run again.
    """
    name = f"records/{trial.key}.json"
    content = exchange.read(name)
    if content is None:
        return None
    try:
        record = TrialRecord.model_validate_json(content)
    except ValidationError:
        record = None
    if record is None or record.trial_key != trial.key:
        logger.warning("%s/%s is not the record of that trial: removed", exchange.address, name)
        exchange.remove(name)
        return None
    return _take(record, trial, exchange, records)


def _take(
    record: TrialRecord, trial: PlannedTrial, exchange: SharedStorage, records: RecordFolder
) -> TrialRecord | None:
    folder = f"storage/{trial.keys.train[:16]}"
    if record.status == "finished":
        for name in exchange.names(folder):
            if name in SENT:
                exchange.get(f"{folder}/{name}", trial.store_folder / name)
        if not TrialStore(trial.store_folder).matches(record.files):
            logger.warning(
                "%s/%s must hold the files of record %s: removed", exchange.address, folder, trial.key
            )
            exchange.remove(f"records/{trial.key}.json")
            return None
    records.write(record)
    if record.done:
        exchange.remove(folder)
    exchange.remove(f"records/{trial.key}.json")
    return record


def run_remote(
    trial: PlannedTrial, place: WorkerContext, report: Callable[[EpochReport], None], exchange: SharedStorage
) -> TrialRecord:
    """As `worker.execute`, on this node's own disk: data and checkpoint are fetched, checkpoints and record sent.

    Raises:
        SharedStorageError, OSError: what the trial needs could not be fetched, or its end not be sent.
    """
    home = scratch(exchange.address)
    with FileLock(home / "locks" / f"{trial.key}.away"):
        here = localize(trial, home, exchange)
        courier = FileSync(here, exchange)
        courier.fetch()
        there = replace(place, records=home / "records", locks=home / "locks")
        _fetch_record(trial, exchange, RecordFolder(there.records))

        def passed_on(epoch: EpochReport) -> None:
            courier.try_to_send()
            report(epoch)

        record = execute(here, there, passed_on)
        courier.send()
        exchange.write(f"records/{trial.key}.json", (record.model_dump_json(indent=1) + "\n").encode())
        RecordFolder(there.records).path(trial.key).unlink(missing_ok=True)
        shutil.rmtree(here.store_folder, ignore_errors=True)
    return record


def scratch(address: str) -> Path:
    """This node's folder for what it exchanges through `address`: under DMLCORE_SCRATCH, else the temporary folder.

    Raises:
        SharedStorageError: another user's.
    """
    base = Path(os.environ.get("DMLCORE_SCRATCH", tempfile.gettempdir())) / f"dmlcore-{os.getuid()}"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = base.lstat()
    if facts.st_uid != os.getuid() or not stat.S_ISDIR(facts.st_mode):
        raise SharedStorageError(f"{base} must be a folder of this user; remove it or set DMLCORE_SCRATCH")
    home = base / hashlib.sha256(address.encode()).hexdigest()[:16]
    (home / "locks").mkdir(parents=True, exist_ok=True)
    return home


def localize(trial: PlannedTrial, home: Path, exchange: SharedStorage) -> PlannedTrial:
    """The trial with the paths that it has on this node, its data and weights fetched."""
    data_hash = trial.keys.inputs["data"]
    folder = home / "data" / data_hash / trial.data_folder.name
    with FileLock(home / "locks" / f"{data_hash}.data"):
        exchange.get_folder(f"data/{data_hash}", folder)
    weights = None
    if trial.weights is not None:
        weights = home / "weights" / f"{trial.keys.inputs['weights']}{trial.weights.suffix}"
        with FileLock(home / "locks" / f"{weights.name}.weights"):
            if not weights.is_file() and not exchange.get(f"weights/{weights.name}", weights):
                raise SharedStorageError(
                    f"{exchange.address}: weights/{weights.name} is missing; run the stage again"
                )
    return replace(
        trial, data_folder=folder, store_folder=home / "storage" / trial.keys.train[:16], weights=weights
    )


def _fetch_record(trial: PlannedTrial, exchange: SharedStorage, records: RecordFolder) -> None:
    """A record that an earlier attempt has sent ends this one at once."""
    path = records.path(trial.key)
    path.unlink(missing_ok=True)
    exchange.get(f"records/{trial.key}.json", path)


@dataclass
class FileSync:
    """Carries the files of one trial between its folder and the exchange."""

    trial: PlannedTrial
    exchange: SharedStorage

    def __post_init__(self) -> None:
        self.folder = f"storage/{self.trial.keys.train[:16]}"
        self.sent: dict[str, tuple[int, int]] = {}

    def fetch(self) -> None:
        """Begin with what an earlier attempt sent, and nothing else."""
        shutil.rmtree(self.trial.store_folder, ignore_errors=True)
        for name in self.exchange.names(self.folder):
            if name in (*SENT, LAST):
                self.exchange.get(f"{self.folder}/{name}", self.trial.store_folder / name)
                self.sent[name] = self._state(name)

    def try_to_send(self) -> None:
        """Send a new checkpoint; where that fails the next one is another try."""
        try:
            if self._state(LAST) != self.sent.get(LAST, (0, 0)) or not self.sent:
                self.send()
        except (OSError, SharedStorageError) as error:
            logger.warning("%s: checkpoint not sent: %s", self.trial.name, error)

    def send(self) -> None:
        """Send each file that has changed since it was sent or fetched."""
        for name in (*SENT, LAST):
            state = self._state(name)
            if state not in ((0, 0), self.sent.get(name)):
                self.exchange.put(self.trial.store_folder / name, f"{self.folder}/{name}")
                self.sent[name] = state

    def _state(self, name: str) -> tuple[int, int]:
        """Size and time of a file; (0, 0) where there is none."""
        try:
            facts = (self.trial.store_folder / name).stat()
        except FileNotFoundError:
            return 0, 0
        return facts.st_size, facts.st_mtime_ns
