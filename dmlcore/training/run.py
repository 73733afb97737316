"""One trial: train, keep the epoch that validation chose, embed, evaluate."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dmlcore.config.trial import TrialConfig
from dmlcore.data.dataset import PreparedDataset, Split
from dmlcore.metrics.arrays import CollapsedError
from dmlcore.metrics.evaluation import Evaluation, evaluate
from dmlcore.training.checkpoint import (
    EpochReport,
    Phase,
    TrainingState,
    load_training_state,
    save_training_state,
)
from dmlcore.training.evaluation import evaluate_stored
from dmlcore.training.ranks import ALONE, Ranks, check_size, evaluate_shared
from dmlcore.training.store import DamagedFileError, TrialStore, state_copy
from dmlcore.training.trainer import Trainer

logger = logging.getLogger(__name__)
CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class TrialResult:
    """All that a trial found."""

    metrics: dict[str, float]
    curve: list[EpochReport]
    utility: dict[str, list[float]]
    """Of the test classes, as `evaluation.utility_curve`."""
    files: dict[str, str] = field(default_factory=dict)
    """Name of each stored file -> its sha256."""


def run_trial(
    config: TrialConfig,
    data: PreparedDataset,
    *,
    store: TrialStore,
    report: Callable[[EpochReport], None] = lambda report: None,
    device: torch.device | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ranks: Ranks = ALONE,
) -> TrialResult:
    """Train `config` on `data` and evaluate the epoch with the highest validation MAP@R on the test classes.

    Where `store` holds the checkpoint of a run that was interrupted, training resumes from it, to the same bits. If a
    file that this run or the interrupted one has stored was changed since, the trial starts again.

    Args:
        config: the trial.
        data: the prepared data set that `config.dataset` names.
        store: its folder takes checkpoints and embeddings; the folder above it takes what trials share.
        report: called after each epoch, epoch 0 being the untrained network; epochs of an interrupted run again.
        device: None for the CPU.
        checkpoint_seconds: how much work an interruption may cost, beyond the epoch that it falls into.
        ranks: rank 0 of the processes that `config.processes` asks for; `sweep.execution.data_parallel` starts them.

    Raises:
        TrainingError: the loss or an embedding is not finite.
        ValueError: a config that does not fit the data, or the number of processes.
    """
    check_size(ranks, config.processes or 1)
    make_deterministic(config.threads)

    def attempt() -> TrialResult:
        run = _TrialRun(config, data, store, report, device or torch.device("cpu"), checkpoint_seconds, ranks)
        if run.state.phase == "selection":
            run.select_epoch()
        if config.train.final:
            run.train_final()
        return run.finish()

    try:
        return attempt()
    except DamagedFileError as error:
        logger.warning("%s: the trial starts again from its first epoch", error)
        store.discard("last")
        return attempt()


def make_deterministic(threads: int) -> None:
    """Make torch give the same bits on the same machine type with the same versions and number of threads."""
    # The order in which partial sums are added depends on the number of threads, and the last bits on the order.
    torch.set_num_threads(threads)
    # cuBLAS repeats its sums in one order only with a workspace of a fixed size; read when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # On a GPU some operations have no deterministic kernel (warn instead of fail); on a CPU all have.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # Filling what nobody reads takes a tenth of a step; it would only hide reads of uninitialised memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@dataclass
class _TrialRun:
    """A trial from its last checkpoint, if it has one, to its result."""

    config: TrialConfig
    data: PreparedDataset
    store: TrialStore
    report: Callable[[EpochReport], None]
    device: torch.device
    checkpoint_seconds: float
    ranks: Ranks

    def __post_init__(self) -> None:
        self.saved_at = time.monotonic()
        found = load_training_state(self.store)
        self.state = TrainingState() if found is None else found[0]
        # A `best` newer than `last` does not match: the epoch that wrote it is trained and written again.
        self.store.digests = self.state.files
        self.trainer = self._trainer(self.state.phase)
        if found is not None:
            found[1].restore(self.trainer)
        # A driver that was killed does not know these epochs: ASHA's rungs and the tracker need the whole curve.
        for earlier in self.state.curve:
            self.report(earlier)

    def _trainer(self, phase: Phase) -> Trainer:
        split = "train" if phase == "selection" else "train+validation"
        return Trainer(self.config, self.data, split, self.device, self.store.folder.parent, self.ranks)

    def select_epoch(self) -> None:
        """Train with a validation after each epoch; store the best epoch's weights as `best`."""
        if not self.state.curve:
            self.state.untrained_test = self._untrained("test", "untrained")
            if self.config.model.backbone.weights is not None:
                # What a trained head must beat: the pretrained features as they are
                features = self.trainer.backbone_features("test")
                self.state.untrained_test |= self._metrics(features, "test", "features")
            self._report(0, self._untrained("validation", "validation"))
        for epoch in range(self.state.epoch + 1, self.config.train.epochs + 1):
            metrics = self.trainer.train_epoch(epoch) | self._evaluate("validation", "validation")
            self._report(epoch, metrics)
            self.state.epoch = epoch
            score = metrics["validation/map_at_r"]
            # `best` comes before the checkpoint that names its epoch. A kill in between leaves a `best` that is newer
            # than `last`; the resumed run trains that epoch again, to the same bits, and writes the same file.
            if score > self.state.best_score:
                self.state.best_score, self.state.best_epoch = score, epoch
                self.store.save("best", state_copy(self.trainer.model))
            self._checkpoint()
        self.trainer.model.load_state_dict(self.store.load("best"))
        self._store_embeddings("validation")

    def train_final(self) -> None:
        """Train on training and validation classes together, as long as validation chose, under the same schedule."""
        if self.state.phase == "selection":
            self.state.phase, self.state.epoch = "final", 0
            self.trainer = self._trainer("final")
        for epoch in range(self.state.epoch + 1, self.state.best_epoch + 1):
            metrics = self.trainer.train_epoch(epoch)
            # The curve counts on, so that no step of a tracker repeats.
            number = self.config.train.epochs + epoch
            self._report(number, {f"final/{key}": value for key, value in metrics.items()})
            self.state.epoch = epoch
            self._checkpoint()
        self.store.save("final", state_copy(self.trainer.model))

    def finish(self) -> TrialResult:
        """Embed the test classes, evaluate what is stored, and drop the checkpoint."""
        self._store_embeddings("test")
        # From the files, as a later re-evaluation does: on the same kind of device both give the same numbers.
        metrics, utility = evaluate_stored(
            self.store.load, self.config.evaluation, self.device, self._evaluation
        )
        training = next(report for report in reversed(self.state.curve) if "train/loss" in report.metrics)
        metrics |= self.state.untrained_test | {
            "validation/best_epoch": float(self.state.best_epoch),
            "train/loss": training.metrics["train/loss"],
            "train/batch_size": float(self.trainer.batch_size),
        }
        names = ("best", "validation", "test", *(["final"] if self.config.train.final else []))
        files = {name: self.store.digests.get(name, "") for name in names}
        if not self.store.matches(files):
            raise DamagedFileError(f"a file in {self.store.folder} was changed while the trial ran")
        self.store.discard("last")
        return TrialResult(metrics, self.state.curve, utility, files)

    def _report(self, epoch: int, metrics: dict[str, float]) -> None:
        """Add an epoch to the curve and report it; `report` may raise to stop the trial."""
        self.state.curve.append(EpochReport(epoch, metrics))
        self.report(self.state.curve[-1])

    def _checkpoint(self) -> None:
        if time.monotonic() - self.saved_at >= self.checkpoint_seconds:
            save_training_state(self.store, self.state, self.trainer)
            self.saved_at = time.monotonic()

    def _evaluate(self, name: str, prefix: str) -> dict[str, float]:
        """Evaluate a split under the current weights, without intervals; `PREFIX/METRIC` -> value."""
        return self._metrics(self.trainer.embed(name), name, prefix)

    def _untrained(self, name: str, prefix: str) -> dict[str, float]:
        """Evaluate a split before training; no metrics where the untrained network cannot tell the images apart."""
        try:
            return self._evaluate(name, prefix)
        except CollapsedError:
            return {}

    def _metrics(self, embeddings: Tensor, name: str, prefix: str) -> dict[str, float]:
        """Compute the metrics of the embeddings of a split.

        `evaluate` is called from here, not through `training.evaluation`: the epoch is chosen by its MAP@R, so this
        call belongs to the code of the train key.
        """
        split = self.data.split(name)
        settings = self.config.evaluation.model_dump(exclude={"bootstrap"})
        settings |= {"is_query": is_query(split), "groups": split.groups, "device": self.device}
        found = self._evaluation(embeddings, split.labels, **settings)
        return {f"{prefix}/{key}": float(value) for key, value in found.metrics.items()}

    def _evaluation(self, embeddings: Tensor, labels: Any, **settings: Any) -> Evaluation:
        """Evaluate on all GPUs of the trial, or with the threads of all its processes: the same numbers."""
        if self.ranks.size > 1 and self.device.type == "cuda":
            given = {"embeddings": embeddings, "labels": labels}
            given |= {name: settings.pop(name) for name in ("is_query", "groups")}
            return evaluate_shared(self.ranks, settings.pop("device"), given, settings)
        with self.ranks.all_threads(self.config.threads):
            return evaluate(embeddings, labels, **settings)

    def _store_embeddings(self, name: str) -> None:
        split = self.data.split(name)
        tensors = {
            "embeddings": self.trainer.embed(name),
            "labels": torch.as_tensor(split.labels),
            "index": torch.as_tensor(split.index),
            "is_query": is_query(split),
            "groups": None if split.groups is None else torch.as_tensor(split.groups),
        }
        self.store.save(name, {key: value for key, value in tensors.items() if value is not None})


def is_query(split: Split) -> Tensor | None:
    """Return [N] bool of a split with a query / gallery protocol; None where every image is both."""
    if set(split.roles) == {"both"}:
        return None
    return torch.tensor([role == "query" for role in split.roles])
