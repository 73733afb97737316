"""Disk: what trials will store, from parameter counts, and the disk budget of a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import polars as pl

from dmlcore.config.trial import ComponentConfig, EvaluationConfig, ModelConfig, TrainConfig, TrialConfig
from dmlcore.core.hashing import json_sha256
from dmlcore.data.dataset import PreparedDataset
from dmlcore.sweep.dry_run.network_sizes import feature_width, model_bytes, objective_bytes
from dmlcore.sweep.plan import PlannedTrial

MOMENTS = {"sgd": 1, "adam": 2, "adamw": 2}
"""Tensors of the size of each parameter that an optimiser keeps."""
FLOAT_BYTES, INT_BYTES = 4, 8


@dataclass(frozen=True)
class ImageCounts:
    """Images of a data set by split, and what decides the time of one."""

    train: float
    validation: float
    test: float
    channels: int = 3
    classes: int = 0
    """Of training and validation."""
    side: int = 0
    """Longest of the stored images, in pixels."""
    jpeg: bool = True
    """Whether they are decoded anew in each epoch."""


@dataclass(frozen=True)
class DiskEstimate:
    """Bytes of a trial's files: `persistent` ones, and `temporary` ones while it trains (its last checkpoint)."""

    persistent: int
    temporary: int


def disk_estimate(trial: PlannedTrial) -> DiskEstimate:
    """Estimate the bytes of checkpoints `best` (and `final`), validation and test embeddings, and `last`."""
    config = trial.cell.config
    images = image_counts(trial.data_folder)
    model, parameters = model_bytes(config.model.model_dump_json(), images.channels)
    # The size of a loss depends neither on the network and its input nor on training and seed.
    width = ModelConfig(embedding_dim=config.model.embedding_dim)
    reset = {
        "model": width,
        "input": None,
        "train": TrainConfig(),
        "seed": 0,
        "threads": 1,
        "processes": None,
    }
    objective = objective_bytes(config.model_copy(update=reset).model_dump_json(), images.classes)
    row = config.model.embedding_dim * FLOAT_BYTES + 2 * INT_BYTES
    moments = MOMENTS[config.train.optimizer.name] * (parameters + objective)
    checkpoints = 2 if config.train.final else 1
    return DiskEstimate(
        persistent=checkpoints * model + int(images.validation + images.test) * row,
        temporary=model + objective + moments,
    )


def missing_features(trials: Iterable[PlannedTrial]) -> dict[Path, int]:
    """Return the files of features of frozen trunks that trials will write, and their bytes; trials share them."""
    files = {}
    for trial in trials:
        if trial.cell.config.model.trunk == "frozen":
            name, size = _features(frozen_trunk_key(trial.cell.config), trial.data_folder)
            files[trial.store_folder.parent / "features" / name] = size
    return {file: size for file, size in files.items() if not file.exists()}


def frozen_trunk_key(config: TrialConfig) -> str:
    """Return the config of a trial, as JSON, without that on which the features of its frozen trunk do not depend."""
    model = config.model.model_copy(update={"embedding_dim": 1, "normalization": "none"})
    reset = {
        "model": model,
        "loss": ComponentConfig(name="none"),
        "regularizers": (),
        "train": TrainConfig(precision=config.train.precision),
        "evaluation": EvaluationConfig(),
        "seed": config.seed if model.backbone.weights is None else 0,
        "processes": None,
    }
    return config.model_copy(update=reset).model_dump_json()


# The helpers below are cached by text: a sweep of thousands of trials has a handful of models and losses.


@cache
def image_counts(folder: Path) -> ImageCounts:
    """Count the images of a prepared data set."""
    data = PreparedDataset.open(folder)
    splits = data.manifest["split"].value_counts()
    counts = dict(zip(splits["split"], splits["count"], strict=True))
    classes = data.manifest.filter(pl.col("split") != "test")["class_name"].n_unique()
    side = int(max(data.manifest["height"].max(), data.manifest["width"].max()))  # type: ignore[type-var,arg-type]
    return ImageCounts(
        train=counts.get("train", 0),
        validation=counts.get("validation", 0),
        test=counts.get("test", 0),
        channels=int(data.summary["channels"]),
        classes=classes,
        side=side,
        jpeg=data.summary["encoding"] == "jpeg",
    )


@cache
def _features(settings: str, folder: Path) -> tuple[str, int]:
    """Return the name of the file of features of a frozen trunk, and its bytes."""
    from dmlcore.training.features import feature_inputs  # here: it imports torch

    config, images = TrialConfig.model_validate_json(settings), image_counts(folder)
    inputs = feature_inputs(config, PreparedDataset.open(folder).data_hash)
    width = feature_width(config.model.model_dump_json(), images.channels)
    rows = images.train + images.validation + images.test
    return f"{json_sha256(inputs)[:24]}.npy", int(rows * width * FLOAT_BYTES)


def folder_bytes(folder: Path) -> int:
    """Sum the bytes of all files below a folder; 0 if it does not exist."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def over_budget(
    trials: Sequence[PlannedTrial], storage: Path, budget_bytes: int | None, concurrent: int
) -> dict[str, str]:
    """Select the trials that must not start because their files would not fit into the sweep's disk budget.

    Everything in `storage` counts, whichever sweep wrote it.

    Args:
        trials: those to run; earlier ones are served first.
        storage: the folder of checkpoints and embeddings.
        budget_bytes: its largest size; None: no limit.
        concurrent: how many trials run, each with its temporary checkpoint, at a time.

    Returns:
        Trial key -> the error for its record.
    """
    if budget_bytes is None or not trials:
        return {}
    estimates = {trial.key: disk_estimate(trial) for trial in trials}
    present = folder_bytes(storage)
    # Temporary checkpoints are reserved for as many trials as run at a time, of the largest kind.
    taken = present + min(concurrent, len(trials)) * max(need.temporary for need in estimates.values())
    refused, shared = {}, set[Path]()
    for trial in trials:
        # What a trial has stored already, in an earlier attempt, is part of `present`.
        more = max(0, estimates[trial.key].persistent - folder_bytes(trial.store_folder))
        features = {file: size for file, size in missing_features([trial]).items() if file not in shared}
        more += sum(features.values())
        if taken + more > budget_bytes:
            refused[trial.key] = (
                f"disk budget: the sweep may use {budget_bytes} bytes (sweep.disk_budget_bytes), {storage} has "
                f"{present} and this trial needs {more} more; not started: raise the budget or remove trials"
            )
        else:
            taken += more
            shared |= features.keys()
    return refused
