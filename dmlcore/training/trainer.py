"""The model, objective and optimiser of a trial on one training split; trains an epoch, embeds a split."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmlcore.config.trial import TrialConfig
from dmlcore.core.seeding import derived_seed
from dmlcore.data.dataset import PreparedDataset, Split
from dmlcore.models import Embedder, Head
from dmlcore.training.build import (
    Objective,
    build_features_head,
    build_model,
    build_objective,
    build_optimizer,
    schedule_factor,
)
from dmlcore.training.features import trunk_features
from dmlcore.training.gradient_cache import backward, check_chunks
from dmlcore.training.language import texts_of
from dmlcore.training.loader import Batch, FeatureLoader, ImageLoader, Loader, autocast, embed
from dmlcore.training.loss_state import LossState
from dmlcore.training.samplers import Indices, class_balanced_batches, random_batches

FETCH_STEPS = 50
"""Steps after which the losses are fetched from a GPU, and a loss that is not finite ends the trial."""


class TrainingError(RuntimeError):
    """Training diverged: a loss or an embedding is not finite."""


class Trainer:
    """A model, its objective and optimiser over the classes of one split.

    Args:
        config: the trial.
        data: the prepared data set.
        split: the one to train on, `train` or `train+validation`.
        device: where it runs.
        caches: folder of the arrays that trials share: text embeddings, features of frozen trunks.

    Raises:
        ValueError: a config that does not fit the data.
    """

    def __init__(
        self, config: TrialConfig, data: PreparedDataset, split: str, device: torch.device, caches: Path
    ) -> None:
        if config.train.decoder == "gpu" and device.type != "cuda":
            raise ValueError(
                "train.decoder gpu needs a GPU, this trial has none: set resources.gpus, or remove train.decoder"
            )
        self.config, self.data, self.device, self.caches = config, data, device, caches
        self.split = data.split(split)
        self.labels = torch.as_tensor(self.split.labels)
        self.batch_size = batch_size(config, len(self.split.class_names))
        self.loaders: dict[str, Loader] = {}
        self.loader = self._loader(split)
        self.model: Embedder | Head = self._model().to(device)
        check_chunks(self.model, config.train.chunk_size)
        self.forward = torch.compile(self.model) if config.model.compile else self.model
        texts = texts_of(data, split, caches / "text")
        num_classes = len(self.split.class_names)
        self.objective: Objective = build_objective(config, num_classes=num_classes, texts=texts).to(device)
        self.objective.check_batch_size(self.batch_size)
        self.loss_state = LossState(self.objective)
        self.optimizer = build_optimizer(config.train.optimizer, self.model, self.objective)
        self.base_rates = [float(group["lr"]) for group in self.optimizer.param_groups]

    def _loader(self, name: str) -> Loader:
        """Return the loader of a split, the same one each time: on a GPU it may keep the split's pixels there."""
        if name not in self.loaders:
            self.loaders[name] = self._new_loader(self.data.split(name))
        return self.loaders[name]

    def _new_loader(self, split: Split) -> Loader:
        if self.config.model.trunk is None:
            return ImageLoader(split, self.config, self.device)
        features = trunk_features(self.config, self.data, cache=self.caches / "features", device=self.device)
        return FeatureLoader(features[split.index], self.device)

    def _model(self) -> Embedder | Head:
        config = self.config
        if isinstance(self.loader, FeatureLoader):
            num_features = self.loader.features.shape[1]
            return build_features_head(config.model, num_features=num_features, seed=config.seed)
        return build_model(config.model, in_channels=self.split.images.channels, seed=config.seed)

    def embed(self, split: str) -> Tensor:
        """Embed a split: [N, D], on the device.

        Raises:
            TrainingError: one is not finite.
        """
        embeddings = embed(self.model, self._loader(split), self.device, self.config.train.precision)
        if not bool(torch.isfinite(embeddings).all()):
            raise TrainingError("embeddings are not finite after training; lower the learning rate")
        return embeddings

    def backbone_features(self, split: str) -> Tensor:
        """Embed a split by the backbone without its head: pooled features [N, F], on the device."""
        loader = self._loader(split)
        if isinstance(loader, FeatureLoader):
            return loader.features
        assert isinstance(self.model, Embedder)
        return embed(self.model, loader, self.device, self.config.train.precision, self.model.pooled)

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch; return the mean of each term of the loss over its batches as `train/...`.

        Raises:
            TrainingError: the loss is not finite.
        """
        self.model.train()
        # Keyed by the epoch: after a resume, dropout draws what it would have drawn without the interruption.
        torch.manual_seed(derived_seed(self.config.seed, "dropout", epoch))
        batches = self._batches(epoch)
        losses = _LossMeans(self.device, epoch, len(batches))
        loaded = self.loader.training_batches(batches, seed=self.config.seed, epoch=epoch)
        for step, (labels, batch) in enumerate(zip(self._labels(batches), loaded, strict=True)):
            self._set_rates(epoch - 1 + step / len(batches))
            losses.add(self._step(batch, labels))
            if (clip := self.config.train.optimizer.gradient_clip) is not None:
                everything = [*self.model.parameters(), *self.objective.parameters()]
                torch.nn.utils.clip_grad_norm_(everything, clip)
            self.optimizer.step()
        return {f"train/{name}": value for name, value in losses.means().items()}

    def _labels(self, batches: list[Indices]) -> tuple[Tensor, ...]:
        """Labels of each batch, on the CPU, where a loss counts them without waiting for a GPU."""
        labels = self.labels[torch.from_numpy(np.concatenate(batches))]
        if self.device.type == "cuda":
            labels = labels.pin_memory()  # from here they are copied while the CPU goes on
        return labels.split([len(batch) for batch in batches])

    def _batches(self, epoch: int) -> list[Indices]:
        train = self.config.train
        drawn: dict[str, Any] = {"seed": self.config.seed, "epoch": epoch, "batch_size": self.batch_size}
        drawn["num_batches"] = train.batches_per_epoch
        if train.batches == "random":
            return random_batches(len(self.labels), **drawn)
        return class_balanced_batches(self.split.labels, images_per_class=train.images_per_class, **drawn)

    def _set_rates(self, progress: float) -> None:
        train = self.config.train
        factor = schedule_factor(train.schedule, epochs=train.epochs, progress=progress)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor

    def _step(self, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        terms = backward(
            self._embeddings,
            batch,
            lambda embeddings: self.objective(embeddings, labels),
            self.config.train.chunk_size,
        )
        named = {f"loss_{name}": term for name, term in terms.items()}
        return {"loss": torch.stack(list(terms.values())).sum()} | named

    def _embeddings(self, inputs: Tensor) -> Tensor:
        with autocast(self.device, self.config.train.precision):
            embeddings: Tensor = self.forward(inputs)
        return embeddings if embeddings.dtype == torch.float64 else embeddings.float()


class _LossMeans:
    """Means of the terms of the loss over the steps of an epoch.

    On a GPU the values are fetched `FETCH_STEPS` steps at a time: each fetch makes the CPU wait for the GPU.
    """

    def __init__(self, device: torch.device, epoch: int, num_steps: int) -> None:
        self.epoch, self.num_steps, self.step = epoch, num_steps, 0
        self.fetch_steps = 1 if device.type == "cpu" else FETCH_STEPS
        self.names: list[str] = []
        self.waiting: list[Tensor] = []
        self.sums: dict[str, float] = {}

    def add(self, terms: dict[str, Tensor]) -> None:
        """Take the terms of the next step.

        Raises:
            TrainingError: the loss of this step, or of one not yet fetched, is not finite.
        """
        self.names = list(terms)
        self.waiting.append(torch.stack(list(terms.values())))
        if len(self.waiting) == self.fetch_steps:
            self._fetch()

    def means(self) -> dict[str, float]:
        if self.waiting:
            self._fetch()
        return self.sums

    def _fetch(self) -> None:
        for row in torch.stack(self.waiting).tolist():
            values = dict(zip(self.names, row, strict=True))
            if not math.isfinite(values["loss"]):
                place = f"epoch {self.epoch}, step {self.step}"
                raise TrainingError(f"train/loss must be finite, got {values} in {place}")
            for name, value in values.items():
                self.sums[name] = self.sums.get(name, 0.0) + value / self.num_steps
            self.step += 1
        self.waiting = []


def batch_size(config: TrialConfig, num_classes: int) -> int:
    """Return `train.batch_size`, cut to what the training classes fill where `train.batch_limit` says so."""
    train = config.train
    if train.batch_limit is None or train.batches == "random":
        return train.batch_size
    return min(train.batch_size, num_classes * train.images_per_class)
