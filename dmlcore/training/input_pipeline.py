"""From the stored images to batches of network input: decode, crop, resize, mirror, collate.

All draws of a batch come before any of its images is decoded, so that threads change nothing.
Shapes: B images, C channels; S x S pixels of a batch; a box is (top, left, height, width) in pixels of a stored image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn.functional import interpolate

from dmlcore.config.trial import RandomCropConfig
from dmlcore.core.errors import DataError
from dmlcore.data.images import Box, Images, Indices, Pixels
from dmlcore.data.jpeg import JpegImages
from dmlcore.training.gpu_crops import Cuts, GpuCrops
from dmlcore.training.samplers import Share, whole

Job = tuple[Tensor, list[Future[None]]]
EVERYTHING = slice(None)


class InputPipeline:
    """Batches of network input, uint8, from the stored images of a split."""

    def __init__(
        self,
        images: Images,
        *,
        size: int | None,
        random_crop: RandomCropConfig | None,
        flip: bool = False,
        workers: int = 1,
        pinned: bool = False,
        decode_on: torch.device | None = None,
    ) -> None:
        """Nothing is read yet.

        Args:
            images: N stored images.
            size: side S of the input; None: the stored pixels as they are.
            random_crop: for training; None: the centre crop as in evaluation.
            flip: mirror every second image by chance, in training.
            workers: threads that decode.
            pinned: put batches into page-locked memory, from which a GPU copies while the CPU goes on.
            decode_on: decode and cut the batches of training, of JPEG images, on this device; None: on the CPU.

        Raises:
            DataError: `size` is None and the images have several sizes or a crop is asked for; `size` or `workers` < 1.
        """
        if workers < 1:
            raise DataError(f"workers must be at least 1, got {workers}")
        if size is not None and size < 1:
            raise DataError(f"size must be at least 1, got {size}")
        self.images, self.random_crop, self.flip, self.workers = images, random_crop, flip, workers
        self.size, self.pinned = size, pinned
        self.shape = (size, size) if size is not None else self._stored_shape()
        self.gpu_crops: GpuCrops | None = None
        if decode_on is not None:
            if not isinstance(images, JpegImages):
                raise DataError(
                    "train.decoder gpu needs a data set of JPEG files, this one stores pixels: remove train.decoder"
                )
            self.gpu_crops = GpuCrops(images, self.shape, decode_on)

    def training_batches(
        self, batches: Iterable[Indices], generator: np.random.Generator, share: Share = whole
    ) -> Iterator[Tensor]:
        """Cut random crops, mirrored by chance, for each batch in order; one batch is decoded ahead, two on a GPU.

        Args:
            batches: of indices [B] of the images; read as far ahead, always in the thread of the caller.
            generator: 23 numbers an image are drawn from it, whatever is asked for; likewise ahead.
            share: the rows of each batch that are decoded; those of the others are drawn all the same.

        Yields:
            [B, S, S, C], uint8; B rows of the share.

        Raises:
            DataError: an index is outside 0..N-1.
        """
        drawn = (self._drawn(self._checked(indices), generator, share) for indices in batches)
        return self._ahead(drawn) if self.gpu_crops is None else self.gpu_crops.batches(drawn)

    def evaluation_batch(self, indices: Indices) -> Tensor:
        """Cut centre crops of S x S stored pixels; of a smaller image the largest square, resized.

        Args:
            indices: [B], of the images.

        Returns:
            [B, S, S, C], uint8.

        Raises:
            DataError: an index is outside 0..N-1.
        """
        return next(self._ahead([(self._checked(indices), self._evaluation_boxes(indices))]))

    def evaluation_batches(self, batch_size: int, rows: slice = EVERYTHING) -> Iterator[Tensor]:
        """`evaluation_batch` of the images `rows` in order, `batch_size` at a time; one batch is decoded ahead."""
        chosen = np.arange(len(self.images))[rows]
        parts = (chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size))
        return self._ahead((part, self._evaluation_boxes(part)) for part in parts)

    def _stored_shape(self) -> tuple[int, int]:
        if self.random_crop is not None:
            raise DataError("random_crop needs `size`, the side of the crop after resizing; got size None")
        shapes = np.unique(self.images.sizes(np.arange(len(self.images))), axis=0)
        if len(shapes) != 1:
            raise DataError(
                f"without `size` all images must have one size, got {shapes[:5].tolist()}; set `size`"
            )
        return int(shapes[0, 0]), int(shapes[0, 1])

    def _drawn(self, indices: Indices, generator: np.random.Generator, share: Share) -> tuple[Indices, Cuts]:
        boxes, mirror = self._training_boxes(indices, generator)
        rows = share(len(indices))
        return indices[rows], (boxes[rows], mirror[rows])

    def _training_boxes(self, indices: Indices, generator: np.random.Generator) -> Cuts:
        draws = generator.random((len(indices), DRAWS))
        mirror = self.flip & (draws[:, -1] < 0.5)
        if self.random_crop is None:
            return self._evaluation_boxes(indices)[0], mirror
        return random_boxes(draws, self.images.sizes(indices), self.random_crop), mirror

    def _evaluation_boxes(self, indices: Indices) -> Cuts:
        sizes = self.images.sizes(indices)
        if self.size is None:
            sides = sizes
        else:
            sides = np.minimum(sizes.min(axis=1), self.size)[:, None].repeat(2, axis=1)
        return np.hstack([(sizes - sides) // 2, sides]), np.zeros(len(indices), np.bool_)

    def _ahead(self, planned: Iterable[tuple[Indices, Cuts]]) -> Iterator[Tensor]:
        """Batches in order, the next one decoded meanwhile; leaving the iterator ends its threads."""
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="inputs", initializer=_compute_alone)
        try:
            waiting: Job | None = None
            for indices, cuts in planned:
                following = self._start(pool, indices, cuts)
                if waiting is not None:
                    yield _finished(waiting)
                waiting = following
            if waiting is not None:
                yield _finished(waiting)
        finally:
            pool.shutdown(cancel_futures=True)

    def _checked(self, indices: Indices) -> Indices:
        wrong = indices[(indices < 0) | (indices >= len(self.images))]
        if len(wrong):
            raise DataError(f"indices must be 0..{len(self.images) - 1}, got {wrong[:5].tolist()}")
        return indices

    def _start(self, pool: ThreadPoolExecutor, indices: Indices, cuts: Cuts) -> Job:
        shape = (len(indices), *self.shape, self.images.channels)
        batch = torch.empty(shape, dtype=torch.uint8, pin_memory=self.pinned)
        work = list(zip(indices.tolist(), *(part.tolist() for part in cuts), batch, strict=True))
        return batch, [pool.submit(self._fill, work[part :: self.workers]) for part in range(self.workers)]

    def _fill(self, work: list[tuple[int, Box, bool, Tensor]]) -> None:
        for index, box, mirror, place in work:
            image = _resized(self.images.read_box(index, box), self.shape)
            place.copy_((image.flip(2) if mirror else image).permute(1, 2, 0))


def _resized(crop: Pixels, shape: tuple[int, int]) -> Tensor:
    """[H, W, C] -> [C, *shape], bilinear; where it shrinks, each pixel is a weighted mean over all it covers.

    Channels stay innermost in memory: torch resizes and mirrors them twice as fast so.
    """
    image = torch.from_numpy(crop).unsqueeze(0).permute(0, 3, 1, 2)
    if image.shape[2:] != shape:
        image = interpolate(image, shape, mode="bilinear", antialias=True)
    return image[0]


def _compute_alone() -> None:
    """Let torch compute on the calling thread alone, and leave the settings of other threads as they are.

    Else each of the workers starts a team of all cores to mirror and copy an image: with 16 threads 256 more, and 1.8
    times the CPU seconds an image.
    """
    torch.get_num_threads()  # at its first call in a thread, torch sets that thread's number
    threadpool_limits(1, user_api="openmp")  # torch.set_num_threads would set that of MKL for all threads


def _finished(job: Job) -> Tensor:
    batch, parts = job
    for part in parts:
        part.result()
    return batch


TRIES = 10  # crops drawn until one is inside the image
DRAWS = 2 * TRIES + 3  # numbers an image: area and ratio of each crop, top, left, mirror


def random_boxes(draws: npt.NDArray[np.float64], sizes: Indices, crop: RandomCropConfig) -> Indices:
    """Draw crops: the first of ten that is inside its image, else the largest centre crop of an allowed ratio.

    Areas are uniform between the bounds of `crop.scale`, logarithms of width to height between those of `crop.ratio`.

    Args:
        draws: [B, 23], uniform in 0..1; the last column is not used.
        sizes: [B, 2], heights and widths.
        crop: bounds of the crops.

    Returns:
        Boxes, [B, 4].

    Reference: Szegedy et al., "Going deeper with convolutions", 2015, section 6; torchvision's RandomResizedCrop.
    """
    low, high = np.log(crop.ratio)
    ratio = np.exp(low + (high - low) * draws[:, TRIES : 2 * TRIES])
    area = sizes.prod(axis=1)[:, None] * (crop.scale[0] + (crop.scale[1] - crop.scale[0]) * draws[:, :TRIES])
    sides = np.rint(np.sqrt(np.stack([area / ratio, area * ratio], axis=2))).astype(np.int64)  # [B, tries, 2]
    fits = ((sides > 0) & (sides <= sizes[:, None])).all(axis=2)
    drawn = sides[np.arange(len(sides)), fits.argmax(axis=1)]
    corner = (draws[:, 2 * TRIES : 2 * TRIES + 2] * (sizes - drawn + 1)).astype(np.int64)
    whole = _largest(sizes, crop.ratio)
    inside = fits.any(axis=1)[:, None]
    return np.hstack([np.where(inside, corner, (sizes - whole) // 2), np.where(inside, drawn, whole)])


def _largest(sizes: Indices, ratio: tuple[float, float]) -> Indices:
    """Sides [B, 2] of the largest crop of each image whose width to height is within `ratio`."""
    height, width = sizes.T
    sides = np.stack(
        [np.minimum(height, np.rint(width / ratio[0])), np.minimum(width, np.rint(height * ratio[1]))]
    )
    return np.maximum(sides.T, 1).astype(np.int64)
