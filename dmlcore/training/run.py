"""One trial: train, keep the epoch that validation chose, embed, evaluate."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dmlcore.config.trial import TrialConfig
from dmlcore.data.dataset import PreparedDataset, Split
from dmlcore.training.checkpoint import (
    EpochReport,
    Phase,
    TrainingState,
    load_training_state,
    restore,
    save_training_state,
)
from dmlcore.training.evaluation import UtilityCurve, evaluate_embeddings, evaluate_splits
from dmlcore.training.store import TrialStore, state_copy
from dmlcore.training.trainer import Trainer, TrainingError

__all__ = ["EpochReport", "TrainingError", "TrialResult", "evaluate_stored", "run_trial", "select_device"]

CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class TrialResult:
    """All that a trial found."""

    metrics: dict[str, float]
    curve: list[EpochReport]
    utility: UtilityCurve
    files: dict[str, str] = field(default_factory=dict)
    """Name of each stored file -> its sha256."""


def select_device(gpus: float) -> torch.device:
    """CUDA where the trial was given a GPU, else the CPU."""
    return torch.device("cuda" if gpus > 0 and torch.cuda.is_available() else "cpu")


def run_trial(
    config: TrialConfig,
    data: PreparedDataset,
    *,
    store: TrialStore,
    report: Callable[[EpochReport], None] = lambda report: None,
    device: torch.device | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> TrialResult:
    """Train `config` on `data` and evaluate the epoch with the highest validation MAP@R on the test classes.

    Where `store` holds the checkpoint of a run that was interrupted, training goes on from it, to the same bits.

    Args:
        config: the trial.
        data: the prepared data set that `config.dataset` names.
        store: where checkpoints and embeddings go; what trials share lies beside it.
        report: called after each epoch, epoch 0 being the untrained network; epochs of an interrupted run again.
        device: None for the CPU.
        checkpoint_seconds: how much work an interruption may cost, beyond the epoch that it falls into.

    Raises:
        TrainingError: the loss is not finite.
        ValueError: a config that does not fit the data.
    """
    make_deterministic(config.threads)
    run = _Run(config, data, store, report, device or torch.device("cpu"), checkpoint_seconds)
    if run.course.phase == "selection":
        run.select()
    if config.train.final:
        run.train_again()
    return run.finish()


def make_deterministic(threads: int) -> None:
    """Same machine type, versions and threads: same bits."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # Filling what nobody reads takes a tenth of a step; it would only hide reads of uninitialised memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


class _Run:
    """A trial from its last checkpoint, if it has one, to its result."""

    def __init__(
        self,
        config: TrialConfig,
        data: PreparedDataset,
        store: TrialStore,
        report: Callable[[EpochReport], None],
        device: torch.device,
        checkpoint_seconds: float,
    ) -> None:
        self.config, self.data, self.store, self.report = config, data, store, report
        self.device, self.checkpoint_seconds = device, checkpoint_seconds
        self.saved = time.monotonic()
        found = load_training_state(store)
        self.course = TrainingState() if found is None else found[0]
        self.trainer = self._trainer(self.course.phase)
        if found is not None:
            restore(found[1], self.trainer.modules, self.trainer.optimizer)
        for earlier in self.course.curve:
            report(earlier)

    def _trainer(self, phase: Phase) -> Trainer:
        split = "train" if phase == "selection" else "train+validation"
        return Trainer(self.config, self.data, split, self.device, self.store.folder.parent)

    def select(self) -> None:
        """Train with a validation after each epoch; the best epoch's weights are kept as `best`."""
        if not self.course.curve:
            test = self._evaluate("test")
            self.course.untrained_test = {f"untrained/{key}": value for key, value in test.items()}
            self._add(0, self._validation())
        for epoch in range(self.course.epoch + 1, self.config.train.epochs + 1):
            metrics = self.trainer.train_epoch(epoch) | self._validation()
            self._add(epoch, metrics)
            self.course.epoch = epoch
            score = metrics["validation/map_at_r"]
            if score > self.course.best_score:
                self.course.best_score, self.course.best_epoch = score, epoch
                self.store.save("best", state_copy(self.trainer.model))
            self._checkpoint()
        self.trainer.model.load_state_dict(self.store.load("best"))
        self._store_embeddings("validation")

    def train_again(self) -> None:
        """Train on training and validation classes together, as long as validation chose, under the same schedule."""
        if self.course.phase == "selection":
            self.course.phase, self.course.epoch = "final", 0
            self.trainer = self._trainer("final")
        for epoch in range(self.course.epoch + 1, self.course.best_epoch + 1):
            metrics = self.trainer.train_epoch(epoch)
            self._add(
                self.config.train.epochs + epoch, {f"final/{key}": value for key, value in metrics.items()}
            )
            self.course.epoch = epoch
            self._checkpoint()
        self.store.save("final", state_copy(self.trainer.model))

    def finish(self) -> TrialResult:
        """Embed the test classes, evaluate what is stored, and drop the checkpoint."""
        self._store_embeddings("test")
        metrics, utility = evaluate_stored(self.store, self.config)
        training = next(report for report in reversed(self.course.curve) if "train/loss" in report.metrics)
        metrics |= self.course.untrained_test | {
            "validation/best_epoch": float(self.course.best_epoch),
            "train/loss": training.metrics["train/loss"],
            "train/batch_size": float(self.trainer.batch_size),
        }
        names = ("best", "validation", "test", *(["final"] if self.config.train.final else []))
        files = {name: self.store.digest(name) for name in names}
        self.store.discard("last")
        return TrialResult(metrics, self.course.curve, utility, files)

    def _add(self, epoch: int, metrics: dict[str, float]) -> None:
        self.course.curve.append(EpochReport(epoch, metrics))
        self.report(self.course.curve[-1])

    def _checkpoint(self) -> None:
        if time.monotonic() - self.saved >= self.checkpoint_seconds:
            save_training_state(self.store, self.course, self.trainer.modules, self.trainer.optimizer)
            self.saved = time.monotonic()

    def _evaluate(self, name: str) -> dict[str, float]:
        split = self.data.split(name)
        found = evaluate_embeddings(
            self.trainer.embed(name), _labels(split), self.config.evaluation, is_query=is_query(split)
        )
        return {key: float(value) for key, value in found.metrics.items()}

    def _validation(self) -> dict[str, float]:
        return {f"validation/{key}": value for key, value in self._evaluate("validation").items()}

    def _store_embeddings(self, name: str) -> None:
        split = self.data.split(name)
        tensors = {
            "embeddings": self.trainer.embed(name),
            "labels": _labels(split),
            "index": torch.as_tensor(split.index),
        }
        queries = is_query(split)
        self.store.save(name, tensors if queries is None else tensors | {"is_query": queries})


def evaluate_stored(store: TrialStore, config: TrialConfig) -> tuple[dict[str, float], UtilityCurve]:
    """The metrics of a trial from its stored embeddings: what re-evaluation without training calls too."""
    return evaluate_splits(store.load("validation"), store.load("test"), config.evaluation)


def is_query(split: Split) -> Tensor | None:
    """[N] bool of a split with a query / gallery protocol; None where every image is both."""
    if set(split.roles) == {"both"}:
        return None
    return torch.tensor([role == "query" for role in split.roles])


def _labels(split: Split) -> Tensor:
    return torch.as_tensor(split.labels)
