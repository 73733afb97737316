"""Early stopping: schedulers that end weak trials before their last epoch.

Optuna's pruners decide. Tune's own schedulers are not used: they end a trial from outside, which leaves no record of
it, and do not know the trials of earlier runs of the stage.
"""

from __future__ import annotations

from collections.abc import Iterable

import optuna
from optuna.pruners import BasePruner, SuccessiveHalvingPruner
from optuna.samplers import RandomSampler

from dmlcore.config.search import StopEarlyConfig
from dmlcore.records import CURVE, TrialRecord
from dmlcore.sweep.plan import PlannedTrial


class EarlyStopping:
    """A scheduler: an Optuna study for each comparison group, in which a pruner ranks the trials.

    A trial that resumes from a checkpoint reports some epochs again. They are not entered twice, and the answer for
    each is the one given before.

    Args:
        config: the section `stop_early` of params.yaml.
    """

    def __init__(self, config: StopEarlyConfig) -> None:
        self.config = config
        self._pruner = self.pruner()
        self._studies: dict[str, optuna.study.Study] = {}
        self._trials: dict[str, optuna.trial.Trial] = {}
        self._last_epoch: dict[str, int] = {}
        self._stopped: dict[str, tuple[int, str]] = {}
        """Trial key -> epoch and reason."""

    def pruner(self) -> BasePruner:
        """Make Optuna's pruner."""
        raise NotImplementedError

    def reason(self, epoch: int, value: float) -> str:
        """Say why a trial with `value` at `epoch` is stopped."""
        raise NotImplementedError

    def replay(self, trials: Iterable[tuple[PlannedTrial, TrialRecord]]) -> None:
        """Enter the curves of trials that have ended."""
        for trial, record in trials:
            for epoch, metrics in enumerate(record.curve):
                self.should_stop(trial, epoch, metrics.get(CURVE))

    def should_stop(self, trial: PlannedTrial, epoch: int, value: float | None) -> str | None:
        """Enter an epoch and return why the trial must end now; None: it continues.

        Args:
            trial: which one.
            epoch: 0 is the untrained network.
            value: its validation MAP@R; None if it has none.
        """
        group, epochs = trial.cell.comparison_group, trial.cell.config.train.epochs
        if group is None or value is None or epoch > epochs:
            return None
        if epoch > self._last_epoch.get(trial.key, -1):
            self._last_epoch[trial.key] = epoch
            reported = self._optuna_trial(group, trial.key)
            reported.report(value, epoch)
            # Reported at the last epoch too, for the trials that come later; but there is nothing left to save.
            if reported.should_prune() and epoch < epochs:
                self._stopped.setdefault(trial.key, (epoch, self.reason(epoch, value)))
        until, reason = self._stopped.get(trial.key, (epochs, ""))
        return reason or None if epoch >= until else None

    def _optuna_trial(self, group: str, key: str) -> optuna.trial.Trial:
        if group not in self._studies:
            self._studies[group] = optuna.create_study(
                direction="maximize", pruner=self._pruner, sampler=RandomSampler(seed=0)
            )
        if key not in self._trials:
            self._trials[key] = self._studies[group].ask()
        return self._trials[key]


class ASHAPruner(EarlyStopping):
    """Asynchronous successive halving: a trial must rank among the best 1/factor of its group at each rung.

    Rungs are the epochs grace x factor^0, grace x factor^1, ...

    Reference: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, algorithm 2.
    """

    def pruner(self) -> BasePruner:
        return SuccessiveHalvingPruner(self.config.grace_epochs, self.config.reduction_factor)

    def reason(self, epoch: int, value: float) -> str:
        grace, factor = self.config.grace_epochs, self.config.reduction_factor
        rung = next(number for number in range(epoch + 1) if grace * factor ** (number + 1) > epoch) + 1
        return (
            f"stopped early at epoch {epoch}, rung {rung}: validation MAP@R {value:.4f} is not among the best "
            f"1/{factor} that came so far"
        )


SCHEDULERS: dict[str, type[EarlyStopping]] = {"asha": ASHAPruner}
"""Name in `sweep.stop_early.scheduler` -> scheduler."""
