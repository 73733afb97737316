"""Data sets published as arrays of pixels, not as image files.

Shapes: N images of H x W pixels, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.core.text import text_lines
from dmlcore.data.images import Pixels
from dmlcore.datasets.acquire.raw_tar import IMAGES_TAR, RawTar
from dmlcore.datasets.acquire.sources import SOURCE, Source, read_source
from dmlcore.datasets.prepare.catalogue import Catalogue, Item, check_counts

UINT8 = 8
"""Third byte of an idx header: the type of the values."""

SAMPLE = "mnist_5k.csv"
"""One row per digit: its 784 grey levels, row by row, then the label."""

SIDE = 28

HALVES = {"train": "train", "test": "t10k"}
"""The published halves hold the same ten classes: their images are put together and divided by params.yaml."""


@dataclass(frozen=True)
class LabelledPixels:
    """One published file of images."""

    pixels: Pixels
    """[N, H, W, C]."""
    labels: npt.NDArray[np.integer]
    """[N], indices into the class names."""

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.labels):
            raise DataError(
                f"must have a label an image, got {len(self.labels)} for {len(self.pixels)} images"
            )


def array_catalogue(
    parts: Mapping[str, LabelledPixels],
    class_names: Sequence[str],
    config: PreprocessConfig,
    source: Source,
    *,
    super_classes: Sequence[str] | None = None,
) -> Catalogue:
    """Build the catalogue of all images of `parts`, resized to `config.image_size` where they have another size.

    Args:
        parts: by name, with which an image's `source` begins: `train/00017`.
        class_names: of the labels 0, 1, ...
        config: its image_size is read.
        source: its counts must be met.
        super_classes: of the labels; None: each class is its own super-class.

    Raises:
        DataError: a label without a name, or other counts than the published ones.
    """
    groups = class_names if super_classes is None else super_classes
    items = []
    for name, part in parts.items():
        if part.labels.min() < 0 or part.labels.max() >= len(class_names):
            raise DataError(
                f"{name}: labels must be 0..{len(class_names) - 1}, got {part.labels.min()}..{part.labels.max()}; "
                "get the archive again"
            )
        for number, label in enumerate(part.labels.tolist()):
            class_name = class_names[label]
            items.append(Item(class_name, groups[label], f"{name}/{number:05d}", split_text=class_name))
    check_counts(items, source)

    def read(item: Item) -> Pixels:
        name, number = item.source.split("/")
        return resized(parts[name].pixels[int(number)], config.image_size)

    channels = next(iter(parts.values())).pixels.shape[3]
    return Catalogue(tuple(items), read, channels, source.description, source.licence)


def resized(pixels: Pixels, size: int) -> Pixels:
    """Resize a square image from [H, H, C] to [size, size, C]."""
    if pixels.shape[0] == size:
        return pixels
    # Channel by channel: Pillow has no image mode for other numbers of channels.
    channels = [
        Image.fromarray(channel).resize((size, size), Image.Resampling.BICUBIC)
        for channel in np.moveaxis(pixels, 2, 0)
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=2)


def read_idx(data: bytes, *, name: str) -> npt.NDArray[np.uint8]:
    """Parse an idx file.

    Args:
        data: two zero bytes, the type, the number of dimensions, each length as 4 bytes (big-endian), the values.
        name: of the file, for errors.

    Raises:
        DataError: another header, another type than bytes, or a length that does not fit the shape.

    Reference: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", 1998, the file format.
    """
    start = 4 + 4 * data[3] if len(data) > 3 and data[:3] == bytes((0, 0, UINT8)) else 0
    if not 4 < start <= len(data):
        raise DataError(
            f"{name}: must be an idx file of bytes, got the header {data[:4]!r}; get the archive again"
        )
    shape = tuple(np.frombuffer(data, ">u4", offset=4, count=data[3]).tolist())
    if len(data) - start != math.prod(shape):
        raise DataError(
            f"{name}: shape {shape} needs {math.prod(shape)} bytes, got {len(data) - start}; truncated"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def idx_catalogue(
    raw: Path, config: PreprocessConfig, class_names: Sequence[str], *, prefix: str = ""
) -> Catalogue:
    """Build the catalogue of grey images in idx files, named as MNIST's after `prefix`, or of MNIST's sample."""
    tar = RawTar.open(raw / IMAGES_TAR)
    if SAMPLE in tar.members:
        rows = np.loadtxt(text_lines(tar.read(SAMPLE), SAMPLE), delimiter=",").astype(np.uint8)
        parts = {"sample": LabelledPixels(rows[:, :-1].reshape(-1, SIDE, SIDE, 1), rows[:, -1])}
    else:
        parts = {half: _read_half(tar, prefix + name) for half, name in HALVES.items()}
    return array_catalogue(parts, class_names, config, read_source(raw / SOURCE))


def _read_half(tar: RawTar, prefix: str) -> LabelledPixels:
    images, labels = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
    pixels = read_idx(tar.read(images), name=images)
    return LabelledPixels(pixels[..., None], read_idx(tar.read(labels), name=labels))
