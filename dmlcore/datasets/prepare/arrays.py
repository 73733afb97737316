"""Published sets that come as arrays of pixels, not as image files.

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
from dmlcore.datasets.acquire.image_decoding import Pixels
from dmlcore.datasets.acquire.raw_tar import IMAGES_TAR, RawTar
from dmlcore.datasets.acquire.sources import SOURCE, Source, read_source
from dmlcore.datasets.prepare.catalogue import Catalogue, Item, check_counts


@dataclass(frozen=True)
class LabelledPixels:
    """One published file of images."""

    pixels: Pixels
    """[N, H, W, C]."""
    labels: npt.NDArray[np.integer]
    """[N], places in the list of class names."""

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
    """All images of `parts`, resized to `config.image_size` where they have another size.

    Args:
        parts: by their name, which an image's `source` begins with: `train/00017`.
        class_names: of the labels 0, 1, ...
        config: its image_size.
        source: its counts are asserted.
        super_classes: of the labels; None: each class is its own.

    Raises:
        DataError: a label without a name, or other counts than the published ones.
    """
    groups = class_names if super_classes is None else super_classes
    items = []
    for name, part in parts.items():
        _check_labels(name, part, class_names)
        for number, label in enumerate(part.labels.tolist()):
            own = class_names[label]
            items.append(Item(own, groups[label], f"{name}/{number:05d}", split_text=own))
    check_counts(items, source)

    def read(item: Item) -> Pixels:
        name, number = item.source.split("/")
        return resized(parts[name].pixels[int(number)], config.image_size)

    channels = next(iter(parts.values())).pixels.shape[3]
    return Catalogue(tuple(items), read, channels, source.description, source.licence)


def resized(pixels: Pixels, size: int) -> Pixels:
    """A square image of [H, H, C] at [size, size, C]."""
    if pixels.shape[0] == size:
        return pixels
    channels = [
        Image.fromarray(channel).resize((size, size), Image.Resampling.BICUBIC)
        for channel in np.moveaxis(pixels, 2, 0)
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=2)


def _check_labels(name: str, part: LabelledPixels, class_names: Sequence[str]) -> None:
    if part.labels.min() < 0 or part.labels.max() >= len(class_names):
        raise DataError(
            f"{name}: labels must be 0..{len(class_names) - 1}, got {part.labels.min()}..{part.labels.max()}; "
            "get the archive again"
        )


UINT8 = 8
"""The third byte of the header: the type of the values."""


def read_idx(data: bytes, *, name: str) -> npt.NDArray[np.uint8]:
    """The array of an idx file.

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


SAMPLE = "mnist_5k.csv"
"""A row a digit: its 784 grey levels, row by row, then the label."""


SIDE = 28


HALVES = {"train": "train", "test": "t10k"}
"""The published halves hold the same ten classes: their images are put together and divided by params.yaml."""


def idx_catalogue(
    raw: Path, config: PreprocessConfig, class_names: Sequence[str], *, prefix: str = ""
) -> Catalogue:
    """Grey images in idx files named as MNIST's behind a prefix, or in its sample where that is among the raw files."""
    pack = RawTar.open(raw / IMAGES_TAR)
    if SAMPLE in pack.places:
        parts = {"sample": _sample(pack)}
    else:
        parts = {half: _half(pack, prefix + name) for half, name in HALVES.items()}
    return array_catalogue(parts, class_names, config, read_source(raw / SOURCE))


def _sample(pack: RawTar) -> LabelledPixels:
    rows = np.loadtxt(pack.read(SAMPLE).decode().splitlines(), delimiter=",").astype(np.uint8)
    return LabelledPixels(rows[:, :-1].reshape(-1, SIDE, SIDE, 1), rows[:, -1])


def _half(pack: RawTar, prefix: str) -> LabelledPixels:
    images, labels = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
    pixels = read_idx(pack.read(images), name=images)
    return LabelledPixels(pixels[..., None], read_idx(pack.read(labels), name=labels))
