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
from dmlcore.data.transforms import augment, augmentation_draws, to_float, without_waiting
from dmlcore.training.input_pipeline import EVERYTHING, InputPipeline
from dmlcore.training.samplers import Indices, Share, shares, whole

CPU = torch.device("cpu")
EMBEDDING_BATCH = 512
"""Images embedded at once on a GPU."""

RESIDENT_SHARE = 0.25
"""Of the GPU's free memory that the pixels of one split may take for good."""

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
    """Loads the images of `split` as `[B, C, S, S]` float32.

    On a GPU whose memory has room, images whose pixels are the same each time (the crops of evaluation, stored pixels
    without a crop) stay there once they were read.
    """

    def __init__(self, split: Split, config: TrialConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.pipeline = input_pipeline(split, config, device)
        self._resident: Tensor | None = None

    def training_batches(
        self, batches: Sequence[Indices], *, seed: int, epoch: int, share: Share = whole
    ) -> Iterator[Batch]:
        """Yield this process's share of the batches of one epoch, augmented; a pure function of (seed, epoch)."""
        # Two streams: the pipeline draws its crops one batch ahead, which must not shift the augmentation's draws.
        crops = keyed_generator(seed, "crops", epoch)
        noise = keyed_generator(seed, "augmentation", epoch)
        made = self._stored(batches, share) or self.pipeline.training_batches(batches, crops, share)
        for batch, images in zip(batches, made, strict=True):
            draws = augmentation_draws(noise, len(batch))[:, share(len(batch))]
            yield self._batch(images.to(self.device, non_blocking=True), draws)

    def _stored(self, batches: Sequence[Indices], share: Share) -> Iterator[Tensor] | None:
        """Return the batches [B, H, W, C] from the device's memory; None where they are not there."""
        if self.config.input is not None or (pixels := self._pixels()) is None:
            return None
        rows = without_waiting(torch.from_numpy(np.concatenate(batches)), self.device)
        return (pixels[part[share(len(part))]] for part in rows.split([len(batch) for batch in batches]))

    def _pixels(self, rows: slice = EVERYTHING) -> Tensor | None:
        """Return images as evaluation takes them, [N, S, S, C], on the device; None where they do not fit.

        `rows`, always the same, are kept alone where nothing else is asked for: of a split that is only embedded.
        """
        kept = EVERYTHING if self.config.input is None else rows
        if self._resident is None and self._fits():
            count = len(range(len(self.pipeline.images))[kept])
            shape = (count, *self.pipeline.shape, self.pipeline.images.channels)
            pixels = torch.empty(shape, dtype=torch.uint8, device=self.device)
            batches = self.pipeline.evaluation_batches(EMBEDDING_BATCH, kept)
            for part, images in zip(pixels.split(EMBEDDING_BATCH), batches, strict=count > 0):
                part.copy_(images, non_blocking=True)
            self._resident = pixels
        if self._resident is None or kept is rows:
            return self._resident
        return self._resident[rows]

    def _fits(self) -> bool:
        if self.device.type != "cuda":
            return False
        height, width = self.pipeline.shape
        size = len(self.pipeline.images) * height * width * self.pipeline.images.channels
        free, _ = torch.cuda.mem_get_info(self.device)
        return size <= RESIDENT_SHARE * free

    def _batch(self, images: Tensor, draws: npt.NDArray[np.float64]) -> Batch:
        settings = self.config.train.augmentation.model_dump()
        if self.config.input is not None:
            settings["horizontal_flip"] = False  # the pipeline mirrors a crop when it cuts it

        def chunk(rows: slice) -> Tensor:
            # All draws of the batch came before: a chunk embedded twice (gradient cache) gets the same noise twice.
            return augment(self._float(images[rows]), draws=draws[:, rows], **settings)

        return Batch(len(images), chunk)

    def __len__(self) -> int:
        return len(self.pipeline.images)

    @property
    def evaluation_batch_size(self) -> int:
        """Return how many images are embedded at once."""
        height, width = self.pipeline.shape
        if self.device.type == "cpu":
            return max(1, min(EMBEDDING_BATCH, CPU_PIXELS // (height * width)))
        return EMBEDDING_BATCH

    def evaluation_batches(self, rows: slice = EVERYTHING) -> Iterator[Tensor]:
        """Yield the images `rows` in order, not augmented, a batch at a time on the device."""
        count = self.evaluation_batch_size
        pixels = self._pixels(rows)
        batches = self.pipeline.evaluation_batches(count, rows) if pixels is None else pixels.split(count)
        for images in batches:
            yield self._float(images.to(self.device, non_blocking=True))

    def _float(self, images: Tensor) -> Tensor:
        if self.config.input is None:
            return to_float(images)
        return to_float(images, mean=self.config.input.mean, std=self.config.input.std)


def input_pipeline(split: Split, config: TrialConfig, device: torch.device = CPU) -> InputPipeline:
    """Build the pipeline that decodes and crops the images of `split` as a trial's config says."""
    size, crop, on_gpu = None, None, device.type == "cuda"
    if config.input is not None:
        size, crop = config.input.size, config.input.random_crop
    return InputPipeline(
        split.images,
        size=size,
        random_crop=crop,
        flip=config.input is not None and config.train.augmentation.horizontal_flip,
        workers=config.threads,
        pinned=on_gpu,
        decode_on=device if config.train.decoder == "gpu" and on_gpu else None,
    )


class FeatureLoader:
    """Loads rows of `features` [N, F], float32, of the images of one split; all are kept on the device."""

    def __init__(self, features: npt.NDArray[np.float32], device: torch.device) -> None:
        self.features = torch.from_numpy(np.array(features)).to(device)

    def training_batches(
        self, batches: Sequence[Indices], *, seed: int, epoch: int, share: Share = whole
    ) -> Iterator[Batch]:
        for indices in batches:
            own = torch.from_numpy(indices[share(len(indices))])
            rows = self.features[without_waiting(own, self.features.device)]
            yield Batch(len(rows), rows.__getitem__)

    def __len__(self) -> int:
        return len(self.features)

    @property
    def evaluation_batch_size(self) -> int:
        return 16 * EMBEDDING_BATCH

    def evaluation_batches(self, rows: slice = EVERYTHING) -> Iterator[Tensor]:
        yield from self.features[rows].split(self.evaluation_batch_size)


Loader = ImageLoader | FeatureLoader


def evaluation_shares(loader: Loader, parts: int) -> list[slice]:
    """Cut the images of `loader` into runs of whole batches: each image is embedded beside those it always is.

    The last bits of an embedding may depend on the size of its batch, so that a cut elsewhere would move them.
    """
    size, count = loader.evaluation_batch_size, len(loader)
    runs = shares(-(-count // size), parts)
    return [slice(min(run.start * size, count), min(run.stop * size, count)) for run in runs]


def embed(
    model: nn.Module,
    loader: Loader,
    device: torch.device,
    precision: str | None = None,
    forward: Callable[[Tensor], Tensor] | None = None,
    rows: slice = EVERYTHING,
) -> Tensor:
    """Embed the images `rows` in evaluation mode, by `forward` or the model: `[N, D]` float32 on `device`."""
    model.eval()
    parts = []
    for batch in loader.evaluation_batches(rows):
        with torch.inference_mode(), autocast(device, precision):
            parts.append((forward or model)(batch).float())
    return torch.cat(parts)


def autocast(device: torch.device, precision: str | None) -> AbstractContextManager[object]:
    """Return the context that the embedder runs in; losses and metrics stay outside of it, in float32."""
    if precision is None:
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))
