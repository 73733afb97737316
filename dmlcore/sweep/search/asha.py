"""Early stopping by asynchronous successive halving (ASHA): a trial must be among the best of its rivals at each rung.

Reference: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020; Optuna's pruner does it.
"""

from __future__ import annotations

from collections.abc import Iterable

import optuna
from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import RandomSampler

from dmlcore.config.sweep import StopEarlyConfig
from dmlcore.records import CURVE, TrialRecord
from dmlcore.sweep.plan import PlannedTrial


class ASHAPruner:
    """The rungs of a sweep. Epochs that are reported again, after a crash, are judged as they were."""

    def __init__(self, config: StopEarlyConfig) -> None:
        self.config = config
        self._pruner = SuccessiveHalvingPruner(config.grace_epochs, config.reduction_factor)
        self._studies: dict[str, optuna.study.Study] = {}
        self._trials: dict[str, optuna.trial.Trial] = {}
        self._seen: dict[str, int] = {}
        self._stopped: dict[str, tuple[int, str]] = {}

    def recall(self, trials: Iterable[tuple[PlannedTrial, TrialRecord]]) -> None:
        """Fill the rungs with trials that have ended."""
        for trial, record in trials:
            for epoch, metrics in enumerate(record.curve):
                self.judge(trial, epoch, metrics.get(CURVE))

    def judge(self, trial: PlannedTrial, epoch: int, value: float | None) -> str | None:
        """Why a trial must end now; None: it goes on.

        Args:
            trial: which one.
            epoch: from 0, the untrained network, on.
            value: its validation MAP@R there; None where an epoch has none.
        """
        rivals, epochs = trial.cell.rivals, trial.cell.config.train.epochs
        if rivals is None or value is None or epoch > epochs:
            return None
        if epoch > self._seen.get(trial.key, -1):
            self._seen[trial.key] = epoch
            reported = self._trial(rivals, trial.key)
            reported.report(value, epoch)
            if reported.should_prune() and epoch < epochs:
                self._stopped.setdefault(trial.key, (epoch, self._reason(epoch, value)))
        until, reason = self._stopped.get(trial.key, (epochs, ""))
        return reason or None if epoch >= until else None

    def _trial(self, rivals: str, key: str) -> optuna.trial.Trial:
        if rivals not in self._studies:
            self._studies[rivals] = optuna.create_study(
                direction="maximize", pruner=self._pruner, sampler=RandomSampler(seed=0)
            )
        if key not in self._trials:
            self._trials[key] = self._studies[rivals].ask()
        return self._trials[key]

    def _reason(self, epoch: int, value: float) -> str:
        grace, factor = self.config.grace_epochs, self.config.reduction_factor
        rung = next(number for number in range(epoch + 1) if grace * factor ** (number + 1) > epoch) + 1
        return (
            f"stopped early at epoch {epoch}, rung {rung}: validation MAP@R {value:.4f} is not among the best "
            f"1/{factor} that came so far"
        )
