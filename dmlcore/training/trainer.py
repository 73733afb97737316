"""The model, objective and optimiser of a trial on one training split; trains an epoch, embeds a split."""

from __future__ import annotations

from collections.abc import Callable
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
from dmlcore.training.loader import (
    Batch,
    FeatureLoader,
    ImageLoader,
    Loader,
    autocast,
    embed,
    evaluation_shares,
)
from dmlcore.training.loss_means import LossMeans, TrainingError
from dmlcore.training.loss_state import LossState
from dmlcore.training.ranks import ALONE, Ranks, check_ranks
from dmlcore.training.samplers import Indices, class_balanced_batches, random_batches, shares


class Trainer:
    """A model, its objective and optimiser over the classes of one split.

    Args:
        config: the trial.
        data: the prepared data set.
        split: the one to train on, `train` or `train+validation`.
        device: where it runs.
        caches: folder of the arrays that trials share: text embeddings, features of frozen trunks.
        ranks: the processes of the trial. Each has a trainer, and follows what that of rank 0 does.

    Raises:
        ValueError: a config that does not fit the data.
    """

    def __init__(
        self,
        config: TrialConfig,
        data: PreparedDataset,
        split: str,
        device: torch.device,
        caches: Path,
        ranks: Ranks = ALONE,
    ) -> None:
        ranks.tell("begin", split)
        if config.train.decoder == "gpu" and device.type != "cuda":
            raise ValueError(
                "train.decoder gpu needs a GPU, this trial has none: set resources.gpus, or remove train.decoder"
            )
        self.config, self.data, self.device, self.caches, self.ranks = config, data, device, caches, ranks
        self.split = data.split(split)
        self.labels = torch.as_tensor(self.split.labels)
        self.batch_size = batch_size(config, len(self.split.class_names))
        self.loaders: dict[str, Loader] = {}
        self.loader = self._loader(split)
        self.model: Embedder | Head = self._model().to(device)
        check_chunks(self.model, config.train.chunk_size)
        check_ranks(ranks, self.batch_size, self.model, compiled=bool(config.model.compile))
        self.batch_norm = ranks.batch_norm(self.model)
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
        self.ranks.tell("embed", split)
        embeddings = self._embedded(split, self.model, self.config.model.embedding_dim)
        if not bool(torch.isfinite(embeddings).all()):
            raise TrainingError("embeddings are not finite after training; lower the learning rate")
        return embeddings

    def backbone_features(self, split: str) -> Tensor:
        """Embed a split by the backbone without its head: pooled features [N, F], on the device."""
        self.ranks.tell("backbone_features", split)
        loader = self._loader(split)
        if isinstance(loader, FeatureLoader):
            return loader.features
        assert isinstance(self.model, Embedder)
        return self._embedded(split, self.model.pooled, self.model.backbone.num_features)

    def _embedded(self, split: str, forward: Callable[[Tensor], Tensor], width: int) -> Tensor:
        """Embed a split, each rank its share, with the weights of rank 0: [N, width]."""
        loader = self._loader(split)
        runs = evaluation_shares(loader, self.ranks.size)
        own = runs[self.ranks.rank]
        self.ranks.send(self.model.state_dict().values())
        if own.start == own.stop:
            rows = torch.empty((0, width), device=self.device)
        else:
            rows = embed(self.model, loader, self.device, self.config.train.precision, forward, own)
        with torch.no_grad():
            return self.ranks.gather(rows, runs)

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch; return the mean of each term of the loss over its batches as `train/...`.

        Raises:
            TrainingError: the loss is not finite.
        """
        self.ranks.tell("train_epoch", epoch)
        self.ranks.send(self.model.state_dict().values())
        self.model.train()
        # Keyed by the epoch: after a resume, dropout draws what it would have drawn without the interruption. And by
        # the rank, so that no two images of a batch share their draws.
        numbers = [epoch] if self.ranks.leads else [epoch, self.ranks.rank]
        torch.manual_seed(derived_seed(self.config.seed, "dropout", *numbers))
        batches = self._batches(epoch)
        losses = LossMeans(self.device, epoch, len(batches))
        loaded = self.loader.training_batches(
            batches, seed=self.config.seed, epoch=epoch, share=self.ranks.own
        )
        for step, (labels, batch) in enumerate(zip(self._labels(batches), loaded, strict=True)):
            self._set_rates(epoch - 1 + step / len(batches))
            losses.add(self._step(batch, labels))
            self.ranks.sum_gradients(self.model.parameters())
            if self.ranks.leads:
                self._update()
            self.ranks.send(self.model.parameters())
        return {f"train/{name}": value for name, value in losses.means().items()}

    def _update(self) -> None:
        if (clip := self.config.train.optimizer.gradient_clip) is not None:
            everything = [*self.model.parameters(), *self.objective.parameters()]
            torch.nn.utils.clip_grad_norm_(everything, clip)
        self.optimizer.step()

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
            lambda embeddings: self._terms(embeddings, labels),
            self.config.train.chunk_size,
        )
        named = {f"loss_{name}": term for name, term in terms.items()}
        return {"loss": torch.stack(list(terms.values())).sum()} | named

    def _terms(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the loss of the whole batch, on rank 0: the others take part in the gradient alone."""
        everything = self.ranks.gather(embeddings, shares(len(labels), self.ranks.size))
        if not self.ranks.leads:
            return {"none": 0.0 * everything.sum()}
        terms: dict[str, Tensor] = self.objective(everything, labels)
        return terms

    def _embeddings(self, inputs: Tensor) -> Tensor:
        with self.batch_norm(), autocast(self.device, self.config.train.precision):
            embeddings: Tensor = self.forward(inputs)
        return embeddings if embeddings.dtype == torch.float64 else embeddings.float()


def batch_size(config: TrialConfig, num_classes: int) -> int:
    """Return `train.batch_size`, cut to what the training classes fill where `train.batch_limit` says so."""
    train = config.train
    if train.batch_limit is None or train.batches == "random":
        return train.batch_size
    return min(train.batch_size, num_classes * train.images_per_class)
