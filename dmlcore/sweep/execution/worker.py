"""Worker: run one planned trial in this process, from its lock to its record."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock

from dmlcore.config.base import canonical
from dmlcore.core.io import write_atomically
from dmlcore.core.sealed_json import finite
from dmlcore.data.dataset import PreparedDataset
from dmlcore.records import RecordFolder, TrialRecord
from dmlcore.sweep.execution.data_parallel import RankLostError, started_ranks
from dmlcore.sweep.execution.guards import NO_LIMITS, Limits, enforce_limits, pop_kill_reason
from dmlcore.sweep.plan import CANCELLED, PlannedTrial
from dmlcore.training.checkpoint import EpochReport
from dmlcore.training.ranks import ALONE
from dmlcore.training.run import TrialResult, run_trial
from dmlcore.training.store import TrialStore

if TYPE_CHECKING:
    from dmlcore.sweep.team_store import TeamStore

PACKAGES = ("torch", "torchvision", "timm", "numpy", "ray", "mlflow", "dvc", "polars")

ATTEMPTS = "attempts"


class StoppedEarlyError(Exception):
    """Raised by `report` in `execute`: the driver ends this trial before its last epoch; says at which rung."""


class CancelledError(StoppedEarlyError):
    """Raised in its place where somebody cancelled the trial; says who."""


@dataclass(frozen=True)
class WorkerContext:
    """What workers know of their study besides the trial; picklable."""

    state: Path
    """The study's state folder, absolute; on a node without the driver's disk, a folder in its place."""
    gpus: float
    limits: Limits = NO_LIMITS
    process_timeout_seconds: float = 1800.0
    """How long a process of a trial waits for another."""
    run: Callable[..., TrialResult] = run_trial
    """Trains and evaluates; benchmarks and fault tests pass another function."""
    team: TeamStore | None = None
    """Where a colleague may have left the record of a trial since the sweep was planned."""

    @property
    def records(self) -> Path:
        return self.state / "records"

    @property
    def locks(self) -> Path:
        return self.state / "locks"

    def kill_reason_file(self, trial_key: str) -> Path:
        """Return where the watchdog says why it ended an attempt."""
        return self.locks / f"{trial_key}.ended"


def execute(
    trial: PlannedTrial, context: WorkerContext, report: Callable[[EpochReport], None]
) -> TrialRecord:
    """Run a trial and write its record; a trial that raises gets a `failed` record with its reason.

    Args:
        trial: what to run.
        context: of the study.
        report: is called after each epoch; may raise StoppedEarlyError.

    Returns:
        The record, or that of an earlier attempt if it is complete.
    """
    context.locks.mkdir(parents=True, exist_ok=True)
    folder = RecordFolder(context.records)
    # Held until the record is written. A worker that outlived its killed driver may still run this trial: its
    # successor waits here, finds the record and has nothing left to do, so that no trial is trained or told twice.
    with FileLock(context.locks / f"{trial.keys.train[:16]}.lock"):
        earlier = folder.read_or_set_aside(trial.key)
        if earlier is not None and trial.is_complete(earlier):
            return earlier
        # Tune calls again after a kill. An attempt that broke a limit would break it again: it is recorded instead.
        reason = pop_kill_reason(context.kill_reason_file(trial.key))
        if context.team is not None and (theirs := context.team.look_up(trial)) is not None:
            record = theirs
        elif reason is None:
            with enforce_limits(context.limits, context.kill_reason_file(trial.key)):
                record = _attempt(trial, context, report)
        else:
            attempts = attempts_at(trial.store_folder)
            record = make_record(trial, status="failed", error=reason, attempts=attempts)
        folder.write(record)  # after all files of the trial: a record vouches for them by checksum
    release_memory()
    return record


def attempts_at(folder: Path) -> int:
    """Return how often the trial with the store `folder` was started; 0 where the file that says so is damaged."""
    try:
        return max(0, int((folder / ATTEMPTS).read_text(encoding="ascii")))
    except (OSError, ValueError):  # it may be gone, cut, or come from an exchange
        return 0


def _attempt(
    trial: PlannedTrial, context: WorkerContext, report: Callable[[EpochReport], None]
) -> TrialRecord:
    started = time.monotonic()
    attempts = attempts_at(trial.store_folder) + 1
    curve: list[EpochReport] = []
    store = TrialStore(trial.store_folder)

    def on_epoch(epoch: EpochReport) -> None:
        curve.append(epoch)
        report(epoch)

    try:
        # First: an attempt that dies counts too.
        write_atomically(trial.store_folder / ATTEMPTS, str(attempts))
        data = PreparedDataset.open(trial.data_folder)
        device, config = select_device(context.gpus), trial.local_config
        caches, timeout = store.folder.parent, context.process_timeout_seconds
        with started_ranks(config, trial.data_folder, caches, device, timeout) as ranks:
            several = {} if ranks is ALONE else {"ranks": ranks}
            result = context.run(config, data, store=store, report=on_epoch, device=device, **several)
        outcome: dict[str, Any] = {
            "status": "finished",
            "files": result.files,
            "curve": [finite(epoch.metrics) for epoch in result.curve],
            "metrics": finite(result.metrics),
            "utility": result.utility,
        }
    except StoppedEarlyError as stop:
        # No metrics: a trial that was stopped early is in no comparison.
        reported = [finite(epoch.metrics) for epoch in curve]
        outcome = {"status": "stopped", "error": str(stop), "curve": reported}
        if isinstance(stop, CancelledError):  # its checkpoint stays: it may be asked for again
            outcome["error_type"] = CANCELLED
        else:
            for name in ("last", "best"):
                store.discard(name)
    except RankLostError:
        raise  # as the death of this process would be, which is tried again
    except Exception as error:
        outcome = {
            "status": "failed",
            "error": f"{type(error).__name__}: {error}",
            "error_type": type(error).__name__,
            "details": traceback.format_exc(),
        }
    return make_record(trial, attempts=attempts, seconds=time.monotonic() - started, **outcome)


def make_record(trial: PlannedTrial, **outcome: Any) -> TrialRecord:
    """Make a record of `trial`, with the versions, machine and memory of its processes."""
    processes = trial.cell.config.processes or 1
    return TrialRecord(
        trial_key=trial.key,
        train_key=trial.keys.train,
        eval_key=trial.keys.eval,
        config=canonical(trial.cell.config),
        labels=trial.cell.labels,
        hashes=trial.keys.inputs,
        versions={name: importlib.metadata.version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        machine=machine_facts() | {"processes": processes},
        peak_memory_bytes=peak_memory_bytes(processes),
        **outcome,
    )


def peak_memory_bytes(processes: int) -> int:
    """Return the largest memory of this process and, of a trial over several, of the largest of the others for each."""
    own, other = (
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return 1024 * (own + (processes - 1) * other)


def machine_facts() -> dict[str, Any]:
    """Return what numbers and times depend on: processor, cores, GPU."""
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
    """Return freed memory to the system.

    The C library keeps it for each thread that ever asked for some, so that a reused worker would only grow (a record's
    `peak_memory_bytes` shows it).
    """
    gc.collect()
    if gc.get_freeze_count() == 0:
        gc.freeze()  # the libraries' million objects never become garbage: later collections skip them
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def select_device(gpus: float) -> torch.device:
    """Return CUDA where the trial was given a GPU, else the CPU."""
    return torch.device("cuda" if gpus > 0 and torch.cuda.is_available() else "cpu")
