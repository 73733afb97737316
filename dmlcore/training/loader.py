"""Loaders of network input: batches of a split's images, or of their features on a frozen trunk; and `embed`.

Shapes: B images of a batch, C channels, S side of the network's input, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dmlcore.config.trial import TrialConfig
from dmlcore.core.seeding import keyed_generator
from dmlcore.data.dataset import Split
from dmlcore.data.transforms import augment, augmentation_draws, to_float
from dmlcore.training.input_pipeline import InputPipeline
from dmlcore.training.samplers import Indices

EMBEDDING_BATCH = 512
"""Images embedded at once on a GPU."""

CPU_PIXELS = 2**18
"""Pixels embedded at once on a CPU, whose caches hold no more: EfficientNet-Lite0 at 128 pixels a side takes 6.6 ms an
image in batches of 8, 12 ms in batches of 32 and 23 ms in batches of 512."""


@dataclass(frozen=True)
class Batch:
    """The input of one step, made chunk by chunk: the same chunk has the same bits however often it is asked for."""

    size: int
    chunk: Callable[[slice], Tensor]
    """Rows of the batch -> network input on the device."""


class ImageLoader:
    """Loads the images of `split` as `[B, C, S, S]` float32."""

    def __init__(self, split: Split, config: TrialConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.pipeline = input_pipeline(split, config)

    def training_batches(self, batches: Sequence[Indices], *, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch, augmented; a pure function of (seed, epoch)."""
        # Two streams: the pipeline draws its crops one batch ahead, which must not shift the augmentation's draws.
        crops = keyed_generator(seed, "crops", epoch)
        noise = keyed_generator(seed, "augmentation", epoch)
        for images in self.pipeline.training_batches(batches, crops):
            yield self._batch(images, augmentation_draws(noise, len(images)))

    def _batch(self, images: Tensor, draws: npt.NDArray[np.float64]) -> Batch:
        settings = self.config.train.augmentation.model_dump()
        if self.config.input is not None:
            settings["horizontal_flip"] = False  # the pipeline mirrors a crop when it cuts it

        def chunk(rows: slice) -> Tensor:
            # All draws of the batch came before: a chunk embedded twice (gradient cache) gets the same noise twice.
            return augment(self._float(images[rows]), draws=draws[:, rows], **settings)

        return Batch(len(images), chunk)

    def evaluation_batches(self) -> Iterator[Tensor]:
        """Yield all images in order, not augmented, a batch at a time on the device."""
        height, width = self.pipeline.shape
        count = EMBEDDING_BATCH
        if self.device.type == "cpu":
            count = max(1, min(count, CPU_PIXELS // (height * width)))
        for images in self.pipeline.evaluation_batches(count):
            yield self._float(images)

    def _float(self, images: Tensor) -> Tensor:
        images = images.to(self.device, non_blocking=True)
        if self.config.input is None:
            return to_float(images)
        return to_float(images, mean=self.config.input.mean, std=self.config.input.std)


def input_pipeline(split: Split, config: TrialConfig) -> InputPipeline:
    """Build the pipeline that decodes and crops the images of `split` as a trial's config says."""
    if config.input is None:
        return InputPipeline(split.images, size=None, random_crop=None, workers=config.threads)
    return InputPipeline(
        split.images,
        size=config.input.size,
        random_crop=config.input.random_crop,
        flip=config.train.augmentation.horizontal_flip,
        workers=config.threads,
    )


class FeatureLoader:
    """Loads rows of `features` [N, F], float32, of the images of one split; all are kept on the device."""

    def __init__(self, features: npt.NDArray[np.float32], device: torch.device) -> None:
        self.features = torch.from_numpy(np.array(features)).to(device)

    def training_batches(self, batches: Sequence[Indices], *, seed: int, epoch: int) -> Iterator[Batch]:
        for indices in batches:
            rows = self.features[torch.from_numpy(indices).to(self.features.device)]
            yield Batch(len(rows), rows.__getitem__)

    def evaluation_batches(self) -> Iterator[Tensor]:
        yield from self.features.split(16 * EMBEDDING_BATCH)


Loader = ImageLoader | FeatureLoader


def embed(model: nn.Module, loader: Loader, device: torch.device, precision: str | None = None) -> Tensor:
    """Embed all images of `loader` in evaluation mode: `[N, D]` float32 on the CPU."""
    model.eval()
    parts = []
    for batch in loader.evaluation_batches():
        with torch.inference_mode(), autocast(device, precision):
            parts.append(model(batch).float().cpu())
    return torch.cat(parts)


def autocast(device: torch.device, precision: str | None) -> AbstractContextManager[object]:
    """Return the context that the embedder runs in; losses and metrics stay outside of it, in float32."""
    if precision is None:
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))
