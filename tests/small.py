"""A small data set that can be learned, and a trial of a few seconds on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dmlcore.config.base import parse
from dmlcore.config.data import PreprocessConfig, SplitConfig
from dmlcore.config.sweep import merge
from dmlcore.config.trial import TrialConfig
from dmlcore.data.dataset import PreparedDataset
from dmlcore.datasets.prepare.build import prepare
from dmlcore.datasets.prepare.catalogue import Catalogue, Item

SIDE = 16
BACKBONE = {
    "name": "resnet10t",
    "arguments": {"channels": [8, 16, 16, 16], "stem_type": "", "stem_width": 8},
}
TRIAL: dict[str, Any] = {
    "dataset": "small",
    "model": {"backbone": BACKBONE, "embedding_dim": 16},
    "loss": {"name": "multi_similarity"},
    "train": {"epochs": 2, "batch_size": 16, "batches_per_epoch": 4, "optimizer": {"learning_rate": 1.0e-2}},
}


def small_catalogue(classes: int = 24, images: int = 6) -> Catalogue:
    """Each class a coarse random pattern, its images that pattern with noise."""
    random = np.random.default_rng(0)
    patterns = random.integers(40, 216, (classes, 4, 4, 1))
    items = tuple(
        Item(f"class {label:02}", "all", f"{label}/{image}", split_text=str(label))
        for label in range(classes)
        for image in range(images)
    )
    pixels = {}
    for item in items:
        label = int(item.source.split("/")[0])
        pattern = patterns[label].repeat(SIDE // 4, axis=0).repeat(SIDE // 4, axis=1)
        noise = random.integers(-39, 40, (SIDE, SIDE, 1))
        pixels[item] = (pattern + noise).astype(np.uint8)
    return Catalogue(items, pixels.__getitem__, 1, "patterns", "none")


def small_dataset(folder: Path) -> PreparedDataset:
    """Write the data set under `folder` and open it."""
    config = PreprocessConfig(image_size=SIDE, split=SplitConfig(test_share=0.34, validation_share=0.25))
    prepare("small", small_catalogue(), config, folder)
    return PreparedDataset.open(folder)


def small_trial(**changes: Any) -> TrialConfig:
    """A trial on the small data set; `changes` are laid over TRIAL."""
    return parse(TrialConfig, merge(TRIAL, changes), "small trial")
