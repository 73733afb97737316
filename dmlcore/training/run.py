"""One trial: train, keep the epoch that validation chose, embed, evaluate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dmlcore.config import TrialConfig
from dmlcore.data.packed import PreparedDataset, Split
from dmlcore.data.randomness import keyed_generator
from dmlcore.data.samplers import Indices, class_balanced_batches, random_batches
from dmlcore.data.transforms import augment, to_float
from dmlcore.models import Embedder
from dmlcore.training.build import Objective, build_model, build_objective, build_optimizer, schedule_factor
from dmlcore.training.embed import embed
from dmlcore.training.evaluation import UtilityCurve, evaluate_embeddings, evaluate_splits
from dmlcore.training.guidance import texts_of
from dmlcore.training.randomness import derived_seed
from dmlcore.training.store import TrialStore, state_copy


class TrainingError(RuntimeError):
    """Training that cannot go on: a loss or an embedding that is not finite."""


@dataclass(frozen=True)
class EpochReport:
    """What is known after an epoch (0: the untrained network): metrics by their path."""

    epoch: int
    metrics: dict[str, float]


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
) -> TrialResult:
    """Train `config` on `data` and evaluate the epoch with the highest validation MAP@R on the test classes.

    Args:
        config: the trial.
        data: the prepared data set that `config.dataset` names.
        store: where checkpoint and embeddings go.
        report: called after each epoch, epoch 0 being the untrained network.
        device: None for the CPU.

    Raises:
        TrainingError: the loss is not finite.
        ValueError: a config that does not fit the data.
    """
    make_deterministic(config.threads)
    trial = _Trial(config, data, device or torch.device("cpu"), store.folder.parent / "text")
    curve = [EpochReport(0, trial.untrained())]
    report(curve[0])
    best = (-1.0, 0)
    for epoch in range(1, config.train.epochs + 1):
        curve.append(EpochReport(epoch, trial.train_epoch(epoch) | trial.validate()))
        report(curve[-1])
        score = curve[-1].metrics["validation/map_at_r"]
        if score > best[0]:
            best = (score, epoch)
            checkpoint = store.save("best", state_copy(trial.model))
    metrics, utility, files = _finish(trial, store)
    metrics |= {f"untrained/{key}": value for key, value in trial.untrained_test.items()}
    metrics |= {"validation/best_epoch": float(best[1]), "train/loss": curve[-1].metrics["train/loss"]}
    return TrialResult(metrics, curve, utility, {"best": checkpoint} | files)


def make_deterministic(threads: int) -> None:
    """Same machine type, versions and threads: same bits."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # Filling what nobody reads takes a tenth of a step; it would only hide reads of uninitialised memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _finish(trial: _Trial, store: TrialStore) -> tuple[dict[str, float], UtilityCurve, dict[str, str]]:
    trial.model.load_state_dict(store.load("best"))
    splits = {name: trial.data.split(name) for name in ("validation", "test")}
    embeddings = {name: trial.embed(split) for name, split in splits.items()}
    files = {
        name: store.save(
            name,
            {"embeddings": embeddings[name], "labels": _labels(split), "index": torch.as_tensor(split.index)},
        )
        for name, split in splits.items()
    }
    metrics, utility = evaluate_stored(store, trial.config)
    return metrics, utility, files


def evaluate_stored(store: TrialStore, config: TrialConfig) -> tuple[dict[str, float], UtilityCurve]:
    """The metrics of a trial from its stored embeddings: what re-evaluation without training calls too."""
    loaded = {name: store.load(name) for name in ("validation", "test")}
    pairs = {name: (tensors["embeddings"], tensors["labels"]) for name, tensors in loaded.items()}
    return evaluate_splits(pairs["validation"], pairs["test"], config.evaluation)


def _labels(split: Split) -> Tensor:
    return torch.as_tensor(split.labels)


class _Trial:
    """The objects of a trial and its two steps: an epoch of training, a validation."""

    def __init__(
        self, config: TrialConfig, data: PreparedDataset, device: torch.device, text_cache: Path
    ) -> None:
        self.config, self.data, self.device = config, data, device
        self.train_split = data.split("train")
        self.labels = _labels(self.train_split)
        channels = int(self.train_split.images.shape[-1])
        self.model: Embedder = build_model(config.model, in_channels=channels, seed=config.seed).to(device)
        num_classes = len(self.train_split.class_names)
        texts = texts_of(self.train_split, text_cache)
        self.objective: Objective = build_objective(config, num_classes=num_classes, texts=texts).to(device)
        self.optimizer = build_optimizer(config.train.optimizer, self.model, self.objective)
        self.base_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.untrained_test: dict[str, float] = {}

    def embed(self, split: Split) -> Tensor:
        embeddings = embed(self.model, split, self.device)
        if not bool(torch.isfinite(embeddings).all()):
            raise TrainingError("embeddings are not finite after training; lower the learning rate")
        return embeddings

    def untrained(self) -> dict[str, float]:
        """Metrics of the initial network, so that a reader sees what training added."""
        test = self.data.split("test")
        found = evaluate_embeddings(self.embed(test), _labels(test), self.config.evaluation).metrics
        self.untrained_test = {key: float(value) for key, value in found.items()}
        return self.validate()

    def validate(self) -> dict[str, float]:
        split = self.data.split("validation")
        found = evaluate_embeddings(self.embed(split), _labels(split), self.config.evaluation).metrics
        return {f"validation/{key}": float(value) for key, value in found.items()}

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """One pass; gives the mean of each term of the loss over the batches."""
        self.model.train()
        torch.manual_seed(derived_seed(self.config.seed, "dropout", epoch))
        noise = keyed_generator(self.config.seed, "augmentation", epoch)
        batches = self._batches(epoch)
        sums: dict[str, float] = {}
        for step, batch in enumerate(batches):
            self._set_rates(epoch - 1 + step / len(batches))
            for name, value in self._step(batch, noise, epoch, step).items():
                sums[name] = sums.get(name, 0.0) + value / len(batches)
        return {f"train/{name}": value for name, value in sums.items()}

    def _batches(self, epoch: int) -> list[Indices]:
        train, seed = self.config.train, self.config.seed
        count, size = train.batches_per_epoch, train.batch_size
        if train.batches == "random":
            return random_batches(
                len(self.labels), batch_size=size, seed=seed, epoch=epoch, num_batches=count
            )
        return class_balanced_batches(
            self.train_split.labels,
            batch_size=size,
            images_per_class=train.images_per_class,
            seed=seed,
            epoch=epoch,
            num_batches=count,
        )

    def _set_rates(self, progress: float) -> None:
        train = self.config.train
        factor = schedule_factor(train.schedule, epochs=train.epochs, progress=progress)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor

    def _step(self, batch: Indices, noise: np.random.Generator, epoch: int, step: int) -> dict[str, float]:
        images = to_float(self.train_split.images[batch]).to(self.device)
        images = augment(images, generator=noise, **self.config.train.augmentation.model_dump())
        terms = self.objective(self.model(images), self.labels[torch.from_numpy(batch)].to(self.device))
        loss = torch.stack(list(terms.values())).sum()
        values = {"loss": loss.item()} | {f"loss_{name}": term.item() for name, term in terms.items()}
        if not math.isfinite(values["loss"]):
            raise TrainingError(f"train/loss must be finite, got {values} in epoch {epoch}, step {step}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.train.optimizer.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.optimizer.gradient_clip)
        self.optimizer.step()
        return values
