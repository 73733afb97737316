"""What runs in a worker process: one planned trial, from its lock to its record."""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import os
import platform
import resource
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from dmlcore.config.base import canonical
from dmlcore.core.io import write_atomically
from dmlcore.data.dataset import PreparedDataset
from dmlcore.records import RecordFolder, TrialRecord, finite
from dmlcore.sweep.execution.limits import NO_LIMITS, Limits, enforce_limits, pop_kill_reason
from dmlcore.sweep.plan import PlannedTrial
from dmlcore.training.run import EpochReport, TrialResult, run_trial, select_device
from dmlcore.training.store import TrialStore

PACKAGES = ("torch", "torchvision", "timm", "numpy", "ray", "mlflow", "dvc", "polars")

ATTEMPTS = "attempts"


class StoppedEarlyError(Exception):
    """Raised by `report` in `execute`: the driver ends this trial before its last epoch; says at which rung."""


@dataclass(frozen=True)
class WorkerContext:
    """Where a worker finds locks and leaves records; all paths absolute."""

    records: Path
    locks: Path
    gpus: float
    limits: Limits = NO_LIMITS
    run: Callable[..., TrialResult] = run_trial
    """What trains and evaluates: a benchmark of the sweep itself has another, tests put faults in."""

    def kill_reason_file(self, trial_key: str) -> Path:
        """Where the watchdog says why it ended an attempt."""
        return self.locks / f"{trial_key}.ended"


def execute(trial: PlannedTrial, place: WorkerContext, report: Callable[[EpochReport], None]) -> TrialRecord:
    """Run a trial and publish its record; a trial that raises becomes a `failed` record with its reason.

    Holds the lock of the trial's key throughout: an orphan of a killed driver cannot publish beside its successor,
    which waits, finds the orphan's record and has nothing left to do. An attempt that broke a limit is not repeated.
    """
    place.locks.mkdir(parents=True, exist_ok=True)
    folder = RecordFolder(place.records)
    with FileLock(place.locks / f"{trial.keys.train[:16]}.lock"):
        earlier = folder.read_or_set_aside(trial.key)
        if earlier is not None and trial.is_complete(earlier):
            return earlier
        reason = pop_kill_reason(place.kill_reason_file(trial.key))
        if reason is None:
            with enforce_limits(place.limits, place.kill_reason_file(trial.key)):
                record = _attempt(trial, place, report)
        else:
            record = make_record(
                trial, status="failed", error=reason, attempts=attempts_at(trial.store_folder)
            )
        folder.write(record)
    release_memory()
    return record


def attempts_at(folder: Path) -> int:
    """How often the trial whose files lie in `folder` was begun."""
    path = folder / ATTEMPTS
    return int(path.read_text()) if path.is_file() else 0


def _attempt(trial: PlannedTrial, place: WorkerContext, report: Callable[[EpochReport], None]) -> TrialRecord:
    started = time.monotonic()
    attempts = attempts_at(trial.store_folder) + 1
    curve: list[EpochReport] = []

    def on_epoch(epoch: EpochReport) -> None:
        curve.append(epoch)
        report(epoch)

    try:
        write_atomically(trial.store_folder / ATTEMPTS, str(attempts))
        data = PreparedDataset.open(trial.data_folder)
        store = TrialStore(trial.store_folder)
        device = select_device(place.gpus)
        outcome: dict[str, Any] = finished(
            place.run(trial.config_here, data, store=store, report=on_epoch, device=device)
        )
    except StoppedEarlyError as stop:
        outcome = stopped(str(stop), curve)
        for name in ("last", "best"):
            TrialStore(trial.store_folder).discard(name)
    except Exception as error:
        outcome = {
            "status": "failed",
            "error": f"{type(error).__name__}: {error}",
            "error_type": type(error).__name__,
            "details": traceback.format_exc(),
        }
    return make_record(trial, attempts=attempts, seconds=time.monotonic() - started, **outcome)


def finished(result: TrialResult) -> dict[str, Any]:
    """The fields of a record that a trial's result fills."""
    return {
        "status": "finished",
        "files": result.files,
        "curve": [finite(report.metrics) for report in result.curve],
        "metrics": finite(result.metrics),
        "utility": asdict(result.utility),
    }


def stopped(reason: str, curve: list[EpochReport]) -> dict[str, Any]:
    """The fields of the record of a trial that was stopped early: no metrics, it is in no comparison."""
    return {"status": "stopped", "error": reason, "curve": [finite(report.metrics) for report in curve]}


def make_record(trial: PlannedTrial, **outcome: Any) -> TrialRecord:
    """A record of `trial` with what this process knows of itself."""
    return TrialRecord(
        trial_key=trial.key,
        train_key=trial.keys.train,
        eval_key=trial.keys.eval,
        config=canonical(trial.cell.config),
        labels=trial.cell.labels,
        hashes=trial.keys.inputs,
        versions={name: importlib.metadata.version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        machine=machine_facts(),
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        **outcome,
    )


def machine_facts() -> dict[str, Any]:
    """What decides bits and seconds: processor, cores, GPU."""
    facts: dict[str, Any] = {"host": platform.node(), "processor": _processor(), "cpus": os.cpu_count()}
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def release_memory() -> None:
    """Give freed memory back to the system: the C library keeps it for each thread that ever asked for some, so that a
    reused worker would only grow (a record's `peak_memory_bytes` shows it).
    """
    gc.collect()
    if gc.get_freeze_count() == 0:
        gc.freeze()  # the libraries, a million objects, need not be walked through after every trial
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL("libc.so.6").malloc_trim(0)
