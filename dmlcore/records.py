"""The trial records on disk: one JSON file a trial, the truth of a study. Knows files only, neither Ray nor MLflow."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dmlcore.core.io import write_atomically

Metrics = dict[str, float | None]
CURVE = "validation/map_at_r"
"""The metric that the table holds after each epoch: it chooses the epoch and tells convergence."""


class RecordError(ValueError):
    """A record file that cannot be read as one."""


class TrialRecord(BaseModel):
    """What is known of a trial that has ended. NaN and infinite metrics are null in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
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


def finite(metrics: Mapping[str, float]) -> Metrics:
    """Replace values that JSON cannot hold by null."""
    return {key: float(value) if math.isfinite(value) else None for key, value in metrics.items()}


class RecordFolder:
    """The folder `state/records` of a study, one `KEY.json` a trial."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, trial_key: str) -> Path:
        return self.folder / f"{trial_key}.json"

    def write(self, record: TrialRecord) -> None:
        """Publish a record atomically; an earlier one of the same key is replaced."""
        write_atomically(self.path(record.trial_key), record.model_dump_json(indent=1) + "\n")

    def read(self, trial_key: str) -> TrialRecord | None:
        """Read the record of a trial, or return None if there is none.

        Raises:
            RecordError: the file is not a record of that trial.
        """
        path = self.path(trial_key)
        try:
            record = TrialRecord.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise RecordError(f"{path} is not a trial record: {error.errors()[0]['msg']}") from None
        if record.trial_key != trial_key:
            raise RecordError(
                f"{path} must hold the record of {trial_key}, it holds that of {record.trial_key}"
            )
        return record

    def read_or_set_aside(self, trial_key: str) -> TrialRecord | None:
        """Read as `read` does, but rename a corrupt file to `KEY.json.corrupt`, so that the trial runs again."""
        try:
            return self.read(trial_key)
        except RecordError:
            path = self.path(trial_key)
            path.replace(path.with_name(path.name + ".corrupt"))
            return None

    def all(self) -> list[TrialRecord]:
        """Read every readable record, by key."""
        keys = sorted(path.stem for path in self.folder.glob("*.json") if not path.name.startswith("."))
        return [record for key in keys if (record := self.read_or_set_aside(key)) is not None]


def trials_table(
    rows: Iterable[tuple[str, Mapping[str, Any], Mapping[str, Any], TrialRecord | None]],
) -> pl.DataFrame:
    """Build the table of trials: one row per planned trial, sorted by key.

    Args:
        rows: (trial key, labels of the cell, canonical config, its record or None).

    Returns:
        Columns `trial_key, status, error`, the labels, `config/...`, the metrics, `utility/...` and
        `curve/validation/map_at_r`, a list from epoch 0 (untrained) on. A trial without a record has status `missing`.
        No dates, seconds or host names: the same records give the same table.
    """
    flat = [_row(*row) for row in sorted(rows, key=lambda row: row[0])]
    names = dict.fromkeys(name for row in flat for name in row)
    columns = sorted(
        names, key=lambda name: name if "/" in name else ""
    )  # the leading ones stay in their order
    return pl.DataFrame([{name: row.get(name) for name in columns} for row in flat], infer_schema_length=None)


def _row(
    key: str, labels: Mapping[str, Any], config: Mapping[str, Any], record: TrialRecord | None
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "trial_key": key,
        "status": record.status if record else "missing",
        "error": record.error if record else "not run yet",
        **labels,
        **{f"config/{path}": value for path, value in flatten(config).items()},
    }
    if record and record.status == "finished":
        row |= record.metrics
        row |= {f"utility/{name}": values for name, values in record.utility.items()}
        if record.curve:
            row[f"curve/{CURVE}"] = [epoch.get(CURVE) for epoch in record.curve]
    return row


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted path -> scalar; lists as JSON text, so that a column has one type."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = json.dumps(value) if isinstance(value, list) else value
    return flat


def write_table(table: pl.DataFrame, path: Path) -> None:
    """Write a parquet file atomically."""
    content = io.BytesIO()  # polars itself calls a full disk a file out of specification
    table.write_parquet(content)
    write_atomically(path, content.getvalue())
