"""The driver's signals to its workers, and what both sides of a sweep share."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dmlcore.sweep.execution.worker import CancelledError, StoppedEarlyError, WorkerContext
from dmlcore.sweep.file_store import SharedStorageError
from dmlcore.sweep.plan import PlannedTrial
from dmlcore.sweep.ray.cluster import Connection
from dmlcore.sweep.ray.shared_storage import SharedStorage
from dmlcore.training.run import TrialResult


@dataclass(frozen=True)
class StopSignals:
    """A file for each trial that must stop, holding the reason.

    Tune returns from `tune.report` only after the driver's callback has handled the epoch, so a signal for an epoch is
    there when its worker checks.
    """

    storage: SharedStorage
    run: str = "run"
    """Of this run of the stage: several studies may share an address, and no signal outlives its run."""

    @property
    def folder(self) -> str:
        return f"control/{self.run}"

    def halt(self, reason: str) -> None:
        """Let no further trial begin; those that run go on."""
        self.storage.at_once.write(f"{self.folder}/halted", reason.encode())

    def is_halted(self) -> bool:
        """Return whether no further trial may begin; called in the worker, before an attempt."""
        return self.storage.read(f"{self.folder}/halted") is not None

    def cancel(self, trial_key: str, reason: str) -> None:
        """Tell the worker of a trial, which may not have begun, to end it for good."""
        self.storage.at_once.write(f"{self.folder}/{trial_key}", reason.encode())

    def check_cancelled(self, trial: PlannedTrial) -> None:
        """End the trial if it was cancelled; called in the worker, before training and after each report.

        Raises:
            CancelledError: it was.
        """
        try:
            reason = self.storage.at_once.read(f"{self.folder}/{trial.key}")
        except SharedStorageError:  # it is out: the next report looks again, the trial goes on
            return
        if reason is not None:
            raise CancelledError(reason.decode(errors="replace")[:300])

    def remove(self) -> None:
        """Remove the signals of this run."""
        self.storage.remove(self.folder)

    def request(self, trial: PlannedTrial, reason: str) -> None:
        """Tell the worker of a trial to end it."""
        self.storage.write(f"stop/{trial.key}", reason.encode())

    def check(self, trial: PlannedTrial) -> None:
        """End the trial if the driver requested it; called in the worker, after each report.

        Raises:
            StoppedEarlyError: the trial must end.
        """
        self.check_cancelled(trial)
        if trial.cell.comparison_group is None:
            return
        reason = self.storage.read(f"stop/{trial.key}")
        if reason is not None:
            self.reset(trial)
            raise StoppedEarlyError(reason.decode(errors="replace")[:200])

    def reset(self, trial: PlannedTrial) -> None:
        """Drop a signal to an earlier attempt; called in the worker, before an attempt.

        The attempt may resume from an earlier epoch; the signal is given again at the epoch to which it belongs.
        """
        if trial.cell.comparison_group is not None:
            self.storage.remove(f"stop/{trial.key}")


@dataclass(frozen=True)
class SweepSession:
    """What the driver and all workers of a sweep have in common."""

    context: WorkerContext
    connection: Connection
    run: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def stop_signals(self) -> StopSignals:
        storage = self.connection.storage or SharedStorage(f"file://{self.context.state}")
        return StopSignals(storage, self.run)


def run_unless_cancelled(
    trial: PlannedTrial, stop_signals: StopSignals, run: Callable[..., TrialResult], *args: Any, **named: Any
) -> TrialResult:
    """Run a trial as `run` does, unless it was cancelled before it began."""
    stop_signals.check_cancelled(trial)
    return run(*args, **named)
