"""What the trials of a sweep will need: seconds and memory from past trials, disk from parameter counts."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

import polars as pl
import torch
from torch import nn

from dmlcore.config.sweep import ResourcesConfig
from dmlcore.config.trial import ModelConfig, TrainConfig, TrialConfig
from dmlcore.data.dataset import PreparedDataset
from dmlcore.records import TrialRecord
from dmlcore.sweep.plan import PlannedTrial
from dmlcore.sweep.validate import meta_model
from dmlcore.training.build import build_objective

MOMENTS = {"sgd": 1, "adam": 2, "adamw": 2}
"""Values of the size of the parameters that an optimiser keeps."""


FLOAT_BYTES, INT_BYTES = 4, 8


HEADER_BYTES = 100
"""Name, type and place of a tensor in its file's header, about."""


LIKE = (("dataset", "backbone", "loss", "variant"), ("dataset", "backbone", "loss"), ("dataset", "backbone"))
"""By which labels a past trial is like a planned one, the closest first."""


@dataclass(frozen=True)
class DiskEstimate:
    """Bytes of a trial's files: `kept` for good, `passing` while it trains (the checkpoint to go on from)."""

    kept: int
    passing: int


def trial_seconds(trial: PlannedTrial, past: Iterable[TrialRecord]) -> float | None:
    """Median over the finished trials that are most alike, each scaled to this one's epochs; None without any.

    Trials that an interruption split know the seconds of their last attempt alone and are left out.
    """
    epochs = trial.cell.config.train.epochs
    whole = [record for record in _alike(trial, past) if record.attempts == 1]
    scaled = [record.seconds / record.config["train"]["epochs"] * epochs for record in whole]
    return median(scaled) if scaled else None


def trial_memory_bytes(trial: PlannedTrial, past: Iterable[TrialRecord]) -> int | None:
    """The largest memory that a process had after a trial most like this one; None without any."""
    return max((record.peak_memory_bytes for record in _alike(trial, past)), default=None)


def _alike(trial: PlannedTrial, past: Iterable[TrialRecord]) -> list[TrialRecord]:
    finished = [record for record in past if record.status == "finished"]
    for names in LIKE:
        wanted = [trial.cell.labels[name] for name in names]
        alike = [record for record in finished if [record.labels.get(name) for name in names] == wanted]
        if alike:
            return alike
    return []


def at_a_time(trials: Iterable[PlannedTrial], resources: ResourcesConfig) -> int:
    """How many trials this machine runs at a time (a cluster: its own number)."""
    threads = max((trial.cell.config.threads for trial in trials), default=1)
    most = max(1, (os.cpu_count() or 1) // threads)
    if resources.gpus > 0 and torch.cuda.is_available():
        most = min(most, max(1, int(torch.cuda.device_count() / resources.gpus)))
    return min(most, resources.max_concurrent or most)


def disk_estimate(trial: PlannedTrial) -> DiskEstimate:
    """Checkpoints `best` (and `final`), the embeddings of validation and test, and `last` while it trains."""
    config = trial.cell.config
    images, channels, classes = _counts(trial.data_folder)
    model, parameters = _model_bytes(config.model.model_dump_json(), channels)
    objective = _objective_bytes(_objective_settings(config), classes)
    row = config.model.embedding_dim * FLOAT_BYTES + 2 * INT_BYTES
    moments = MOMENTS[config.train.optimizer.name] * (parameters + objective)
    copies = 2 if config.train.final else 1
    return DiskEstimate(kept=copies * model + images * row, passing=model + objective + moments)


@cache
def _counts(folder: Path) -> tuple[int, int, int]:
    """Images to embed, channels, classes to train on."""
    data = PreparedDataset.open(folder)
    embedded = data.manifest.filter(pl.col("split").is_in(["validation", "test"])).height
    classes = data.manifest.filter(pl.col("split") != "test")["class_name"].n_unique()
    return embedded, int(data.summary["channels"]), classes


@cache
def _model_bytes(settings: str, channels: int) -> tuple[int, int]:
    """Bytes of the model's state, and of the parameters in it; `settings` is a ModelConfig as JSON."""
    config = ModelConfig.model_validate_json(settings)
    model: nn.Module = meta_model(config, in_channels=channels)
    if config.trunk == "frozen":
        model = nn.ModuleDict(
            {name: part for name, part in model.named_children() if name in ("normalization", "projection")}
        )
    return _bytes(model.state_dict().values()), _bytes(model.parameters())


def _objective_settings(config: TrialConfig) -> str:
    """What of a trial's config its loss's own parameters depend on, as JSON."""
    kept = config.model_copy(update={"train": TrainConfig(), "input": None, "seed": 0, "threads": 1})
    return kept.model_dump_json()


@cache
def _objective_bytes(settings: str, classes: int) -> int:
    config = TrialConfig.model_validate_json(settings)
    return _bytes(build_objective(config, num_classes=classes).state_dict().values())


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() + HEADER_BYTES for tensor in tensors)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
