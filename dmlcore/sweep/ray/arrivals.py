"""What arrives from shared storage, where anybody may have written it: fetched, and verified before it is used.

Data sets, weights and results by their hashes, records by the keys, config and labels of their trial.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dmlcore.config.base import canonical
from dmlcore.core.errors import DataError
from dmlcore.core.hashing import file_sha256
from dmlcore.data.dataset import CLASS_TEXTS, IMAGES, MANIFEST, SUMMARY, PreparedDataset
from dmlcore.data.verification import verify_once
from dmlcore.records import NewerRecordError, RecordError, TrialRecord, flatten, parse_record
from dmlcore.sweep.execution.worker import ATTEMPTS
from dmlcore.sweep.file_store import SharedStorageError
from dmlcore.sweep.plan import CANCELLED, PlannedTrial
from dmlcore.sweep.ray.shared_storage import COMPLETE, SharedStorage
from dmlcore.sweep.score_margins import SOURCE
from dmlcore.training.store import TrialStore

logger = logging.getLogger(__name__)
DATA_FILES = (MANIFEST, IMAGES, SUMMARY, CLASS_TEXTS)
RESULTS = (ATTEMPTS, "best.safetensors", "final.safetensors", "validation.safetensors", "test.safetensors")
LAST = "last.safetensors"
"""The checkpoint to resume from. It is sent after RESULTS, since it refers to `best`."""


@dataclass
class FileSync:
    """Copies the files of one trial between its store folder and shared storage."""

    trial: PlannedTrial
    storage: SharedStorage

    def __post_init__(self) -> None:
        self.folder = f"storage/{self.trial.keys.train[:16]}"
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
        self._send(self.storage)

    def _send(self, storage: SharedStorage) -> None:
        for name in (*RESULTS, LAST):
            version = self._version(name)
            if version not in ((0, 0), self.synced.get(name)):
                storage.put(self.trial.store_folder / name, f"{self.folder}/{name}")
                self.synced[name] = version

    def try_to_send(self) -> None:
        """Upload a new checkpoint. A failure costs nothing but this one: the next epoch tries again."""
        try:
            if self._version(LAST) != self.synced.get(LAST, (0, 0)) or not self.synced:
                self._send(self.storage.at_once)
        except (OSError, SharedStorageError) as error:
            logger.warning("%s: checkpoint not sent: %s", self.trial.name, error)

    def _version(self, name: str) -> tuple[int, int]:
        """Return size and time of a local file; (0, 0) if it does not exist."""
        try:
            status = (self.trial.store_folder / name).stat()
        except FileNotFoundError:
            return 0, 0
        return status.st_size, status.st_mtime_ns


class SendingStore(TrialStore):
    """The store of a trial that sends each checkpoint: at the end of the next epoch a node may be lost.

    Args:
        store: of the trial.
        sync: of its files.
    """

    def __init__(self, store: TrialStore, sync: FileSync) -> None:
        super().__init__(store.folder, store.digests)
        self._sync = sync

    def save_state(self, name: str, tensors: Mapping[str, Tensor], facts: str) -> None:
        super().save_state(name, tensors, facts)
        self._sync.try_to_send()


def record_left(trial: PlannedTrial, storage: SharedStorage, sync: FileSync) -> TrialRecord | None:
    """Return the record that a node left of a trial, its files fetched and verified.

    A record that is not of this trial, was changed, or names files that are not there is removed, with a warning.

    Raises:
        SharedStorageError: it is of a later version of dmlcore, which is not removed.
    """
    name = f"records/{trial.key}.json"
    content = storage.read(name)
    if content is None:
        return None
    try:
        record = parse_record(content, trial.key)
        fault = mismatch(record, trial)
    except NewerRecordError as error:
        raise SharedStorageError(f"{storage.address}/{name} {error}") from None
    except RecordError as error:
        fault = str(error)
    else:
        if not fault and record.status == "finished":
            sync.fetch(RESULTS)
            if not TrialStore(trial.store_folder).matches(record.files):
                fault = f"names files that {sync.folder} does not hold"
        if not fault:
            return record
    logger.warning("%s/%s %s: removed, the trial runs again", storage.address, name, fault)
    storage.remove(name)
    return None


@dataclass(frozen=True)
class Identity:
    """What a record must hold to be that of a trial: the keys, and what they were made from."""

    key: str
    train: str
    eval: str
    config: Mapping[str, Any]
    hashes: Mapping[str, Any]

    @classmethod
    def of(cls, trial: PlannedTrial) -> Identity:
        """Return what this sweep has computed for a trial."""
        keys = trial.keys
        return cls(keys.trial, keys.train, keys.eval, canonical(trial.cell.config), keys.inputs)

    @classmethod
    def recorded(cls, record: TrialRecord) -> Identity:
        """Return that of a trial that ran here."""
        return cls(record.trial_key, record.train_key, record.eval_key, record.config, record.hashes)

    def mismatch(self, record: TrialRecord) -> str:
        """Return in what a record is not that of the trial; empty: in nothing."""
        if (record.train_key, record.eval_key) != (self.train, self.eval):
            return "has the keys of another trial"
        # The path of the weights may differ, their content is in the key.
        if _without("model.backbone.weights", record.config) != _without(
            "model.backbone.weights", self.config
        ):
            return "has the config of another trial"
        # Which trial gave the margins is in no key; the margins are, in the config.
        return "" if _without(SOURCE, record.hashes) == _without(SOURCE, self.hashes) else "has other hashes"

    def read(self, content: bytes, status: str) -> TrialRecord:
        """Read a record from elsewhere, with the config and hashes of this side in place of theirs, which are equal.

        Raises:
            RecordError: it is not one, or not that of the trial, or of another status.
        """
        record = parse_record(content, self.key)
        fault = self.mismatch(record)
        if not fault and (record.status != status or record.error_type == CANCELLED):
            fault = f"must be {status}, it is {record.status}"
        if not fault and not {f"{name}.safetensors" for name in record.files} <= set(RESULTS):
            fault = f"must name files among {', '.join(RESULTS[1:])}"
        if fault:
            raise RecordError(fault)
        return record.model_copy(update={"config": dict(self.config), "hashes": dict(self.hashes)})


def _without(path: str, values: Mapping[str, Any]) -> dict[str, Any]:
    flat = flatten(values)
    return {name: flat[name] for name in flat if name != path and not name.startswith(f"{path}.")}


def mismatch(record: TrialRecord, trial: PlannedTrial) -> str:
    """Return in what a record is not that of a trial of this study, its labels included; empty: in nothing."""
    # Which settings of a search are chosen is known only at its end: `role` alone may differ.
    labels, own = ({**given, "role": None} for given in (record.labels, trial.cell.labels))
    other = "" if labels == own else f"has the labels of another trial: {record.name[:200]}"
    return Identity.of(trial).mismatch(record) or other


def fetch_data(data_hash: str, folder: Path, home: Path, storage: SharedStorage) -> None:
    """Download a data set and verify it by its hash, which the driver has sent with the trial."""
    for _ in range(2):  # a copy of an earlier sweep may be damaged: it is fetched again
        storage.get_folder(f"data/{data_hash}", folder, DATA_FILES)
        try:
            data = PreparedDataset.open(folder)
            verify_once(data, home / "verified" / f"{data_hash}.json")
        except DataError as error:
            fault = str(error)
        else:
            if data.data_hash == data_hash:
                return
            fault = f"its hash is {data.data_hash[:8]}"
        shutil.rmtree(folder)
    # Without this file the next sweep uploads the data set again.
    storage.remove(f"data/{data_hash}/{COMPLETE}")
    raise SharedStorageError(
        f"{storage.address}: data/{data_hash} is not the data set of that hash ({fault}); run the stage again"
    )


def fetch_weights(file: Path, sha256: str, storage: SharedStorage) -> None:
    """Download a file of weights unless it is here, and verify it by its sha256."""
    name = f"weights/{file.name}"
    if file.is_file() and file_sha256(file) == sha256:
        return
    if not storage.get(name, file):
        raise SharedStorageError(f"{storage.address}: {name} is missing; run the stage again")
    if file_sha256(file) != sha256:
        file.unlink()
        storage.remove(name)
        raise SharedStorageError(f"{storage.address}: {name} does not have that sha256; run the stage again")
