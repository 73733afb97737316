"""Generated data sets and trials for benchmarks.gpu."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dmlcore.config.base import parse
from dmlcore.config.trial import TrialConfig
from dmlcore.data.dataset import IMAGES, PreparedDataset
from dmlcore.data.jpeg import JPEG_OPTIONS

Counts = dict[str, tuple[int, int]]
"""Split -> classes and images of each."""
TINY_BACKBONE = {
    "name": "resnet10t",
    "arguments": {"channels": [8, 8, 8, 8], "stem_type": "", "stem_width": 8},
}
JPEG_INPUT = {"size": 224, "random_crop": {"scale": (0.08, 1.0), "ratio": (0.75, 4 / 3)}}


def photographs(count: int) -> list[bytes]:
    """Encode generated pictures of short side 256, some 60 KiB each."""
    from benchmarks.input_path import generated

    def encoded(seed: int) -> bytes:
        file = io.BytesIO()
        generated(seed).save(file, **JPEG_OPTIONS)
        return file.getvalue()

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(encoded, range(count)))


def jpeg_dataset(folder: Path, counts: Counts, distinct: int) -> PreparedDataset:
    """A prepared data set of `distinct` JPEG files, each the file of many rows."""
    files = photographs(distinct)
    lengths = np.array([len(file) for file in files])
    offsets = np.cumsum(lengths) - lengths
    which = np.arange(sum(classes * each for classes, each in counts.values())) % distinct
    columns = {"offset": offsets[which], "length": lengths[which]}
    return _dataset(folder, b"".join(files), counts, columns, {"encoding": "jpeg", "channels": 3})


def raw_dataset(folder: Path, counts: Counts, side: int = 32) -> PreparedDataset:
    """A prepared data set that can be learned: each class a coarse pattern, its images that pattern with noise."""
    rng = np.random.default_rng(0)
    total = sum(classes for classes, _ in counts.values())
    patterns = rng.integers(40, 216, (total, 4, 4, 3))
    labels = np.repeat(np.arange(total), [each for classes, each in counts.values() for _ in range(classes)])
    images = patterns[labels].repeat(side // 4, axis=1).repeat(side // 4, axis=2)
    images = (images + rng.integers(-39, 40, images.shape)).astype(np.uint8)
    size = side * side * 3
    columns = {
        "height": np.full(len(labels), side),
        "width": np.full(len(labels), side),
        "offset": np.arange(len(labels)) * size,
        "length": np.full(len(labels), size),
    }
    return _dataset(folder, images.tobytes(), counts, columns, {"encoding": "raw", "channels": 3})


def _dataset(
    folder: Path, pixels: bytes, counts: Counts, columns: dict[str, npt.NDArray[Any]], summary: dict[str, Any]
) -> PreparedDataset:
    folder.mkdir(parents=True)
    (folder / IMAGES).write_bytes(pixels)
    splits = [name for name, (classes, each) in counts.items() for _ in range(classes * each)]
    per_class = [each for classes, each in counts.values() for _ in range(classes)]
    labels = np.repeat(np.arange(len(per_class)), per_class)
    manifest = pl.DataFrame(
        {
            "index": np.arange(len(labels)),
            "split": splits,
            "label": labels,
            "class_name": [f"{label:06}" for label in labels],
            "role": ["both"] * len(labels),
            **columns,
        }
    )
    return PreparedDataset(folder, manifest, summary | {"data_hash": "0" * 64})


def trial(**sections: Any) -> TrialConfig:
    """A trial on a generated data set."""
    defaults: dict[str, Any] = {
        "dataset": "generated",
        "loss": {"name": "multi_similarity"},
    }
    return parse(TrialConfig, defaults | sections, "generated trial")
