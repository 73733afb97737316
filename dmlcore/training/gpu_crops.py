"""Training crops on a GPU: nvJPEG decodes, two matrix products a batch crop, resize and mirror.

A background thread makes the batches, two ahead of the step that takes them, on a stream of its own: the step's thread
launches its kernels without sharing Python's lock with a thread per core that decodes.
Shapes: B images of a batch, S x S pixels of a crop after resizing, H x W pixels of the largest crop before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dmlcore.core.errors import DataError
from dmlcore.data.decoders import DecodingError, decode_on
from dmlcore.data.images import Indices
from dmlcore.data.jpeg import JpegImages
from dmlcore.data.transforms import without_waiting

AHEAD = 2
"""Batches made ahead of the one that the step takes."""

PIXELS = 2**24
"""Pixels of crops resized at once: 144 images of 341 x 341. In float32 they take 200 MB."""

Cuts = tuple[Indices, npt.NDArray[np.bool_]]
"""Boxes [B, 4] as (top, left, height, width), and which of them are mirrored [B]."""


class GpuCrops:
    """Batches of crops, decoded and resized on `device`. On a CPU, for the tests, by the CPU's decoder."""

    def __init__(self, images: JpegImages, shape: tuple[int, int], device: torch.device) -> None:
        self.images, self.shape, self.device = images, shape, device
        # Float16 holds 0..255 exactly and weights to 1 in 2048; its products run on tensor cores.
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        # Before the step's own kernels: the few that make a batch take 1 ms, and a late batch holds up the step.
        self.stream = torch.cuda.Stream(device=device, priority=-1) if device.type == "cuda" else None

    def batches(self, jobs: Iterable[tuple[Indices, Cuts]]) -> Iterator[Tensor]:
        """Yield [B, S, S, 3], uint8, for each (indices [B], cuts) in order; jobs are read two batches ahead.

        Raises:
            DataError: an image cannot be decoded.
        """
        pool = ThreadPoolExecutor(1, thread_name_prefix="gpu-inputs")
        waiting: deque[Future[Tensor]] = deque()
        try:
            for indices, cuts in jobs:
                waiting.append(pool.submit(self._batch, indices, cuts))
                if len(waiting) > AHEAD:
                    yield self._taken(waiting.popleft())
            while waiting:
                yield self._taken(waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _taken(self, job: Future[Tensor]) -> Tensor:
        batch = job.result()
        if self.stream is not None:
            # Its memory goes back to the other stream only when this one has read it.
            batch.record_stream(torch.cuda.current_stream(self.device))
        return batch

    def _batch(self, indices: Indices, cuts: Cuts) -> Tensor:
        boxes, mirrored = cuts
        height, width = boxes[:, 2:].max(axis=0).tolist()
        count = max(1, PIXELS // (height * width))
        parts = []
        with torch.no_grad(), self._on_stream():
            for first in range(0, len(indices), count):
                rows = slice(first, first + count)
                images = self._decoded(indices[rows])
                parts.append(resized_crops(images, boxes[rows], mirrored[rows], self.shape, self.dtype))
                # nvJPEG's next images may come into the memory of these ones: see `decode_on`.
                self._finish()
            batch = torch.cat(parts) if len(parts) > 1 else parts[0]
            self._finish()
        return batch

    def _on_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def _finish(self) -> None:
        if self.stream is not None:
            self.stream.synchronize()

    def _decoded(self, indices: Indices) -> list[Tensor]:
        files = [self.images.encoded(index) for index in indices.tolist()]
        try:
            return decode_on(self.device, files)
        except DecodingError as error:
            raise self._named(indices, error) from error

    def _named(self, indices: Indices, error: DecodingError) -> DataError:
        """Find the image that the decoder refused: it does not say which."""
        for index in indices.tolist():
            try:
                decode_on(self.device, [self.images.encoded(index)])
            except DecodingError:
                return DataError(
                    f"nvJPEG cannot decode image {index} of the split; prepare the data set again, "
                    "or remove train.decoder to decode on the CPU"
                )
        return DataError(f"nvJPEG cannot decode a batch: {error}; remove train.decoder to decode on the CPU")


def resized_crops(
    images: list[Tensor],
    boxes: Indices,
    mirrored: npt.NDArray[np.bool_],
    shape: tuple[int, int],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Crop, resize and mirror as the CPU does: bilinear; where it shrinks, a weighted mean over all pixels covered.

    Args:
        images: B of [3, height, width], uint8, on one device.
        boxes: [B, 4], as (top, left, height, width).
        mirrored: [B].
        shape: (S, S).
        dtype: of the two products.

    Returns:
        [B, S, S, 3], uint8; within one level of the CPU's, which rounds between the two directions.
    """
    device = images[0].device
    crops = _packed(images, boxes).to(dtype)  # [B, H, 3, W]
    count, height, _, width = crops.shape
    sides = without_waiting(torch.from_numpy(boxes[:, 2:].astype(np.float32)), device)
    flips = without_waiting(torch.from_numpy(mirrored), device)
    rows = _weights(sides[:, 0], shape[0], height).to(dtype)
    columns = _weights(sides[:, 1], shape[1], width).to(dtype)
    columns = torch.where(flips[:, None, None], columns.flip(1), columns)
    tall = torch.bmm(rows, crops.view(count, height, 3 * width)).view(count, shape[0] * 3, width)
    resized = torch.bmm(tall, columns.transpose(1, 2)).view(count, shape[0], 3, shape[1])
    return resized.round_().clamp_(0.0, 255.0).to(torch.uint8).transpose(2, 3).contiguous()


def _packed(images: list[Tensor], boxes: Indices) -> Tensor:
    """Return the crops side by side, [B, H, 3, W], uint8; what lies outside of a crop has no meaning."""
    height, width = boxes[:, 2:].max(axis=0).tolist()
    crops = torch.empty((len(images), height, 3, width), dtype=torch.uint8, device=images[0].device)
    for image, (top, left, tall, wide), place in zip(images, boxes.tolist(), crops, strict=True):
        crop = image[:, top : top + tall, left : left + wide]
        place[:tall, :, :wide].copy_(crop.transpose(0, 1))
    return crops


def _weights(sides: Tensor, size: int, length: int) -> Tensor:
    """Return what each of `length` pixels adds to each of `size` resized ones, [B, size, length].

    Pixel i takes a triangle around its centre, as wide as the pixel it stands for, over the first `sides[b]` pixels.
    """
    scale = (sides / size)[:, None, None]
    centres = (torch.arange(size, device=sides.device) + 0.5)[:, None] * scale
    pixels = torch.arange(length, device=sides.device) + 0.5
    weights = (1.0 - (pixels - centres).abs() / scale.clamp(min=1.0)).clamp_(min=0.0)
    weights = weights * (pixels < sides[:, None, None])
    return weights / weights.sum(dim=2, keepdim=True)
