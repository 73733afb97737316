"""A checkout with one trained trial, and the images of its test split as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from dmlcore.config.base import canonical
from dmlcore.config.data import PreprocessConfig, SplitConfig
from dmlcore.config.trial import TrialConfig
from dmlcore.data.dataset import PreparedDataset
from dmlcore.datasets.prepare.build import prepare
from dmlcore.records import RecordFolder, TrialRecord
from dmlcore.training.run import run_trial
from dmlcore.training.store import TrialStore
from tests.cli.study import SWEEP
from tests.datasets.photo_files import photo_catalogue
from tests.small import SIDE, small_dataset, small_trial

KEY = "0" * 16
JPEG: dict[str, Any] = {"image_size": 24, "encoding": "jpeg"}
VARIANTS: dict[str, dict[str, Any]] = {
    "whole": {},
    "frozen": {"model": {"trunk": "frozen"}},
    "final": {"train": {"final": True}},
    "jpeg": {"input": {"size": SIDE, "mean": [0.5, 0.4, 0.3], "std": [0.3, 0.2, 0.2]}},
}
"""What is changed in a trial on the small data set; `jpeg` is trained on whole photographs of several shapes."""


def trained_checkout(root: Path, variant: str) -> Path:
    """Write a checkout whose study `.` has one finished trial; its test images are below `images/`, in order."""
    prepared = root / "data" / "prepared" / "small"
    prepared.parent.mkdir(parents=True)
    dataset = _photographs(root, prepared) if variant == "jpeg" else _drawings(root, prepared)
    preprocess = JPEG if variant == "jpeg" else {"image_size": SIDE}
    settings = {"kind": "image_folder", "source": "x", "preprocess": preprocess}
    (root / "data" / "dvc.yaml").write_text("stages: {}\n")
    (root / "data" / "params.yaml").write_text(yaml.safe_dump({"datasets": {"small": settings}}))
    (root / "params.yaml").write_text(yaml.safe_dump({"sweep": SWEEP}))
    RecordFolder(root / "state" / "records").write(_trained(root, small_trial(**VARIANTS[variant]), dataset))
    return root


def _trained(root: Path, config: TrialConfig, dataset: PreparedDataset) -> TrialRecord:
    result = run_trial(config, dataset, store=TrialStore(root / "state" / "storage" / KEY))
    return TrialRecord(
        trial_key=f"{KEY}-abcdef01",
        train_key=KEY + "0" * 48,
        eval_key="abcdef01" * 8,
        status="finished",
        config=canonical(config),
        labels={"dataset": "small", "backbone": "tiny", "loss": "ms", "variant": "baseline", "seed": 0},
        files=result.files,
        metrics=dict(result.metrics),
    )


def _drawings(root: Path, prepared: Path) -> PreparedDataset:
    dataset = small_dataset(prepared)
    images = dataset.split("test").images
    for index in range(len(images)):
        path = root / "images" / f"{index // 10}" / f"{index:03}.PNG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.read(index)[:, :, 0]).save(path)
    return dataset


def _photographs(root: Path, prepared: Path) -> PreparedDataset:
    catalogue = photo_catalogue()
    config = PreprocessConfig(**JPEG, split=SplitConfig(test_share=0.34, validation_share=0.25))
    prepare("small", catalogue, config, prepared)
    dataset = PreparedDataset.open(prepared)
    files = {item.source: catalogue.read(item) for item in catalogue.items}
    test = dataset.manifest.filter(split="test")["source"].to_list()
    for index, source in enumerate(test):
        path = root / "images" / f"{index // 10}" / f"{index:03}.PNG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(files[source]))
    return dataset
