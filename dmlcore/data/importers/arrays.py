"""Published sets that come as arrays of pixels, not as image files.

Shapes: N images of H x W pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from dmlcore.config import PreprocessConfig
from dmlcore.data.catalogue import Catalogue, Item, Pixels
from dmlcore.data.errors import DataError
from dmlcore.data.sources import Source, check_counts


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
