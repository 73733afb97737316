"""The trial records on disk: one JSON file a trial, the truth of a study. Knows files only, neither Ray nor MLflow."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dmlcore.core.io import write_atomically
from dmlcore.core.metric_ranges import range_faults
from dmlcore.core.sealed_json import SealError, check_seal, json_object, sealed

Metrics = dict[str, float | None]
CURVE = "validation/map_at_r"
"""The metric that the table of trials holds after each epoch: it chooses the epoch and tells convergence."""
SCHEMA_VERSION = 2
"""1 had no checksum: such a record cannot be verified, so it is set aside and its trial runs again."""
ABOUT_THE_FILE = ("schema_version", "written_by")
KEY = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}")
"""A trial key: the beginnings of the train key and of the eval key, which are sha256."""


class RecordError(ValueError):
    """A record file that cannot be read as one, or that holds what cannot be."""


class NewerRecordError(RecordError):
    """A record of a later schema version: nothing is wrong with it, but this version cannot read it."""


class TrialRecord(BaseModel):
    """What is known of a trial that has ended. NaN and infinite metrics are null in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trial_key: str
    train_key: str
    eval_key: str
    status: Literal["finished", "failed", "stopped"]
    error: str | None = None
    """Why it failed: the type and message of the exception; `details` has the traceback. Or at which epoch and rung it
    was stopped."""
    error_type: str | None = None
    """Class name of the exception that failed it, e.g. `TrainingError`. None for a trial whose process died or was
    ended, and in records from before 0.2."""
    details: str | None = None
    config: dict[str, Any]
    """The canonical TrialConfig."""
    labels: dict[str, Any] = {}
    """The cell: data set, backbone, loss, variant, seed."""
    hashes: dict[str, Any] = {}
    """Data, weights, and each source file that the keys rest on."""
    versions: dict[str, str] = {}
    machine: dict[str, Any] = {}
    attempts: int = 1
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    files: dict[str, str] = {}
    """Stored checkpoint and embeddings -> sha256."""
    curve: list[Metrics] = []
    """One entry an epoch, from the untrained network (0) on."""
    metrics: Metrics = {}
    utility: dict[str, list[float]] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the name of the trial, as `trial_name`."""
        return trial_name(self.labels)

    @property
    def done(self) -> bool:
        """Finished, or stopped by a scheduler: not to be run again."""
        return self.status in ("finished", "stopped")


def trial_name(labels: Mapping[str, Any]) -> str:
    """Name a trial by its labels: `glyphs resnet smooth_ap tcm(...) seed 0`."""
    parts = [str(value) for key, value in labels.items() if key != "seed"]
    return " ".join([*parts, f"seed {labels.get('seed', '?')}"])


def record_text(record: TrialRecord) -> str:
    """Return the content of a record's file."""
    try:
        version = importlib.metadata.version("dmlcore")
    except importlib.metadata.PackageNotFoundError:  # a node that was sent the code alone
        version = "unknown"
    values = json.loads(record.model_dump_json())
    return sealed({"schema_version": SCHEMA_VERSION, "written_by": version, **values})


def parse_record(content: bytes, trial_key: str) -> TrialRecord:
    """Read the content of a record's file, which anybody may have written.

    Raises:
        RecordError: it is not the record of that trial, was changed, or holds what no trial can give; the message
            completes "The file ...".
    """
    try:
        values = json_object(content)
        _check_version(values)
        check_seal(values)
        record = TrialRecord.model_validate({k: v for k, v in values.items() if k not in ABOUT_THE_FILE})
    except SealError as error:
        raise RecordError(str(error)) from None
    except ValidationError as error:
        fault = error.errors()[0]
        path = ".".join(map(str, fault["loc"]))
        raise RecordError(f"is not a trial record: `{path}`: {fault['msg']}") from None
    ends = ({name: end(curve)} for name, curve in record.utility.items() if curve for end in (min, max))
    if faults := [*_key_faults(record, trial_key), *range_faults(record.metrics, *record.curve, *ends)]:
        raise RecordError(faults[0])
    return record


def _check_version(values: Mapping[str, Any]) -> None:
    version = values.get("schema_version")
    if type(version) is not int or version < SCHEMA_VERSION:
        raise RecordError(
            f"must have schema version {SCHEMA_VERSION}, it has {str(version)[:40]}: without a checksum it cannot be "
            "verified"
        )
    if version > SCHEMA_VERSION:
        raise NewerRecordError(
            f"was written by dmlcore {str(values.get('written_by', 'unknown'))[:40]} in schema version {version}, this "
            f"version reads {SCHEMA_VERSION}: use that version of dmlcore, or move the file away"
        )


def _key_faults(record: TrialRecord, trial_key: str) -> Iterable[str]:
    """Yield what is wrong with the texts that become names of files: each must have its pattern."""
    if record.trial_key != trial_key:
        yield f"must hold the record of {trial_key}, it holds that of {record.trial_key[:40]!r}"
    digests = {"train_key": record.train_key, "eval_key": record.eval_key, **record.files}
    for name, value in digests.items():
        if not re.fullmatch(r"[0-9a-f]{64}", value):
            yield f"`{name[:40]}` must be a sha256 of 64 hexadecimal digits, got {value[:80]!r}"
    if f"{record.train_key[:16]}-{record.eval_key[:8]}" != trial_key:
        yield f"trial key {trial_key} must begin like train_key and eval_key, got {record.train_key[:16]} and others"
    for name in record.files:
        if not re.fullmatch(r"[a-z]+", name):
            yield f"`files` must be names of lower-case letters, got {name[:80]!r}"
    dataset = record.config.get("dataset", "unnamed")
    if not (isinstance(dataset, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", dataset)):
        yield f"`config.dataset` must be the name of a data set, got {str(dataset)[:80]!r}"


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted path -> scalar; lists as JSON text, so that a column has one type."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = json.dumps(value) if isinstance(value, list) else value
    return flat


class RecordFolder:
    """The folder `state/records` of a study, one `KEY.json` a trial; any other file there is left alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, trial_key: str) -> Path:
        """Return the path of a record.

        Raises:
            RecordError: no such key can be; a key may come from a file.
        """
        if not KEY.fullmatch(trial_key):
            raise RecordError(f"a trial key must be 16 and 8 hexadecimal digits, got {trial_key[:80]!r}")
        return self.folder / f"{trial_key}.json"

    def keys(self) -> list[str]:
        """Return the keys under which there are files."""
        return sorted(path.stem for path in self.folder.glob("*.json") if KEY.fullmatch(path.stem))

    def write(self, record: TrialRecord) -> None:
        """Publish a record atomically; an earlier one of the same key is replaced."""
        write_atomically(self.path(record.trial_key), record_text(record))

    def read(self, trial_key: str) -> TrialRecord | None:
        """Read the record of a trial, or return None if there is none.

        Raises:
            RecordError: the file is not a record of that trial; NewerRecordError: not of this version.
        """
        path = self.path(trial_key)
        try:
            return parse_record(path.read_bytes(), trial_key)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RecordError(f"{path} cannot be read: {error.strerror}") from None
        except RecordError as error:
            raise type(error)(f"{path} {error}") from None

    def read_all(self) -> tuple[dict[str, TrialRecord], dict[str, RecordError]]:
        """Read every record: (key -> record, key -> what is wrong with its file). Changes nothing."""
        records, faults = {}, {}
        for key in self.keys():
            try:
                record = self.read(key)
            except RecordError as error:
                faults[key] = error
            else:
                if record is not None:
                    records[key] = record
        return records, faults

    def all(self) -> list[TrialRecord]:
        """Read every readable record, by key."""
        return list(self.read_all()[0].values())

    def read_or_set_aside(self, trial_key: str) -> TrialRecord | None:
        """Read as `read` does, but set a broken file aside, so that the trial runs again. For the sweep alone.

        Raises:
            NewerRecordError: another version of dmlcore wrote it; it stays as it is.
        """
        try:
            return self.read(trial_key)
        except NewerRecordError:
            raise
        except RecordError as error:
            print(f"sweep: {error}; set aside as {self._set_aside(trial_key).name}", flush=True)
            return None

    def _set_aside(self, trial_key: str) -> Path:
        """Rename a record to `KEY.json.corrupt`, or, where there is one, with a number."""
        path, number = self.path(trial_key), 1
        target = path.with_name(f"{path.name}.corrupt")
        while target.exists():
            number += 1
            target = path.with_name(f"{path.name}.corrupt{number}")
        return path.replace(target)
