"""The model, objective and optimiser of a trial on one training split; trains an epoch, embeds a split."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

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
from dmlcore.training.held_state import HeldState
from dmlcore.training.language import texts_of
from dmlcore.training.loader import Batch, FeatureLoader, ImageLoader, Loader, autocast, embed
from dmlcore.training.samplers import Indices, class_balanced_batches, random_batches


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
        self.config, self.data, self.device, self.caches = config, data, device, caches
        self.split = data.split(split)
        self.labels = torch.as_tensor(self.split.labels)
        self.batch_size = batch_size(config, len(self.split.class_names))
        self.loader = self._loader(self.split)
        self.model: Embedder | Head = self._model().to(device)
        check_chunks(self.model, config.train.chunk_size)
        self.forward = torch.compile(self.model) if config.model.compile else self.model
        texts = texts_of(data, split, caches / "text")
        num_classes = len(self.split.class_names)
        self.objective: Objective = build_objective(config, num_classes=num_classes, texts=texts).to(device)
        self.objective.check_batch_size(self.batch_size)
        self.held = HeldState(self.objective)
        self.optimizer = build_optimizer(config.train.optimizer, self.model, self.objective)
        self.base_rates = [float(group["lr"]) for group in self.optimizer.param_groups]

    def _loader(self, split: Split) -> Loader:
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
        """Embed a split: [N, D], on the CPU.

        Raises:
            TrainingError: one is not finite.
        """
        loader = self._loader(self.data.split(split))
        embeddings = embed(self.model, loader, self.device, self.config.train.precision)
        if not bool(torch.isfinite(embeddings).all()):
            raise TrainingError("embeddings are not finite after training; lower the learning rate")
        return embeddings

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch; return the mean of each term of the loss over its batches as `train/...`.

        Raises:
            TrainingError: the loss is not finite.
        """
        self.model.train()
        # Keyed by the epoch: after a resume, dropout draws what it would have drawn without the interruption.
        torch.manual_seed(derived_seed(self.config.seed, "dropout", epoch))
        batches = self._batches(epoch)
        sums: dict[str, float] = {}
        loaded = self.loader.training_batches(batches, seed=self.config.seed, epoch=epoch)
        for step, (indices, batch) in enumerate(zip(batches, loaded, strict=True)):
            self._set_rates(epoch - 1 + step / len(batches))
            values = self._step(batch, self.labels[torch.from_numpy(indices)].to(self.device))
            if not math.isfinite(values["loss"]):
                raise TrainingError(f"train/loss must be finite, got {values} in epoch {epoch}, step {step}")
            if (clip := self.config.train.optimizer.gradient_clip) is not None:
                everything = [*self.model.parameters(), *self.objective.parameters()]
                torch.nn.utils.clip_grad_norm_(everything, clip)
            self.optimizer.step()
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value / len(batches)
        return {f"train/{name}": value for name, value in sums.items()}

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

    def _step(self, batch: Batch, labels: Tensor) -> dict[str, float]:
        self.optimizer.zero_grad(set_to_none=True)
        terms = backward(
            self._embeddings,
            batch,
            lambda embeddings: self.objective(embeddings, labels),
            self.config.train.chunk_size,
        )
        named = {f"loss_{name}": term for name, term in terms.items()}
        # One transfer for all terms: each `.item()` would make the CPU wait for the GPU once more.
        values = torch.stack([torch.stack(list(terms.values())).sum(), *terms.values()]).tolist()
        return dict(zip(["loss", *named], values, strict=True))

    def _embeddings(self, inputs: Tensor) -> Tensor:
        with autocast(self.device, self.config.train.precision):
            embeddings: Tensor = self.forward(inputs)
        return embeddings if embeddings.dtype == torch.float64 else embeddings.float()


def batch_size(config: TrialConfig, num_classes: int) -> int:
    """Return `train.batch_size`, cut to what the training classes fill where `train.batch_limit` says so."""
    train = config.train
    if train.batch_limit is None or train.batches == "random":
        return train.batch_size
    return min(train.batch_size, num_classes * train.images_per_class)
