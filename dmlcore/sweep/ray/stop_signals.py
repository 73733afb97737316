"""Stop signals: how the driver tells a worker that its trial must end before its last epoch."""

from __future__ import annotations

from dataclasses import dataclass

from dmlcore.sweep.execution.worker import StoppedEarlyError
from dmlcore.sweep.plan import PlannedTrial
from dmlcore.sweep.ray.shared_storage import SharedStorage


@dataclass(frozen=True)
class StopSignals:
    """A file for each trial that must stop, holding the reason.

    Tune returns from `tune.report` only after the driver's callback has handled the epoch, so a signal for an epoch is
    there when its worker checks.
    """

    storage: SharedStorage

    def request(self, trial: PlannedTrial, reason: str) -> None:
        """Tell the worker of a trial to end it."""
        self.storage.write(f"stop/{trial.key}", reason.encode())

    def check(self, trial: PlannedTrial) -> None:
        """End the trial if the driver requested it; called in the worker, after each report.

        Raises:
            StoppedEarlyError: the trial must end.
        """
        if trial.cell.comparison_group is None:
            return
        reason = self.storage.read(f"stop/{trial.key}")
        if reason is not None:
            self.reset(trial)
            raise StoppedEarlyError(reason.decode())

    def reset(self, trial: PlannedTrial) -> None:
        """Drop a signal to an earlier attempt; called in the worker, before an attempt.

        The attempt may resume from an earlier epoch; the signal is given again at the epoch to which it belongs.
        """
        if trial.cell.comparison_group is not None:
            self.storage.remove(f"stop/{trial.key}")
