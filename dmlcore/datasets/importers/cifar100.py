"""CIFAR-100 from its binary version; the better known one is a Python pickle, which can run code when it is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.core.text import text_lines
from dmlcore.data.images import Pixels
from dmlcore.datasets.acquire.raw_tar import IMAGES_TAR, RawTar
from dmlcore.datasets.acquire.sources import SOURCE, read_source
from dmlcore.datasets.prepare.arrays import LabelledPixels, array_catalogue
from dmlcore.datasets.prepare.catalogue import Catalogue

FOLDER = "cifar-100-binary"
SIDE = 32

RECORD = 2 + 3 * SIDE * SIDE
"""Bytes per image: coarse label, fine label, then the red, green and blue planes row by row."""


def load_catalogue(raw: Path, config: PreprocessConfig) -> Catalogue:
    """List the images of raw/NAME under their 100 fine classes, the 20 coarse ones as super-classes.

    The published halves hold the same classes: their images are put together and divided by params.yaml.
    """
    tar = RawTar.open(raw / IMAGES_TAR)
    fine, coarse = _names(tar, "fine"), _names(tar, "coarse")
    records = {half: _records(tar, half) for half in ("train", "test")}
    places = _coarse_of_fine(np.concatenate(list(records.values())), len(fine))
    parts = {
        half: LabelledPixels(rows[:, 2:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1), rows[:, 1])
        for half, rows in records.items()
    }
    groups = [coarse[place] for place in places]
    return array_catalogue(parts, fine, config, read_source(raw / SOURCE), super_classes=groups)


def _names(tar: RawTar, kind: str) -> list[str]:
    name = f"{FOLDER}/{kind}_label_names.txt"
    return [line.strip() for line in text_lines(tar.read(name), name) if line.strip()]


def _records(tar: RawTar, half: str) -> Pixels:
    name = f"{FOLDER}/{half}.bin"
    data = tar.read(name)
    if not data or len(data) % RECORD:
        raise DataError(f"{name}: must hold records of {RECORD} bytes, got {len(data)} bytes; truncated")
    return np.frombuffer(data, np.uint8).reshape(-1, RECORD)


def _coarse_of_fine(records: Pixels, classes: int) -> list[int]:
    """Return the coarse label of each fine one, [classes]."""
    coarse, fine = np.unique(records[:, :2], axis=0).T
    if fine.max() >= classes or len(np.unique(fine)) < len(fine):
        raise DataError(
            f"{FOLDER}: each of {classes} fine labels must have one coarse label; get the archive again"
        )
    places = np.zeros(classes, np.int64)
    places[fine] = coarse
    return places.tolist()
