"""Forecast: time and memory of trials from past ones, disk space from parameter counts, and the disk budget."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
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
from dmlcore.sweep.plan import PlannedTrial, WaitingTrial
from dmlcore.sweep.validate import meta_model
from dmlcore.training.build import build_objective

MOMENTS = {"sgd": 1, "adam": 2, "adamw": 2}
"""Tensors of the size of each parameter that an optimiser keeps."""
FLOAT_BYTES, INT_BYTES = 4, 8
HEADER_BYTES = 100
"""Name, type and offset of a tensor in the header of its file, about."""
SIMILARITY = (
    ("dataset", "backbone", "loss", "variant"),
    ("dataset", "backbone", "loss"),
    ("dataset", "backbone"),
)
"""Labels that a past trial must share with a planned one, the closest match first."""


@dataclass(frozen=True)
class DiskEstimate:
    """Bytes of a trial's files: `persistent` ones, and `temporary` ones while it trains (its last checkpoint)."""

    persistent: int
    temporary: int


def trial_seconds(trial: PlannedTrial | WaitingTrial, past: Iterable[TrialRecord]) -> float | None:
    """Estimate the time of a trial: median over the most similar finished trials, scaled to this one's epochs.

    Returns:
        Seconds; None if there is no similar trial.
    """
    epochs = trial.cell.config.train.epochs
    # A trial that was interrupted records the seconds of its last attempt alone.
    uninterrupted = [record for record in _similar(trial, past) if record.attempts == 1]
    scaled = [record.seconds / record.config["train"]["epochs"] * epochs for record in uninterrupted]
    return median(scaled) if scaled else None


def trial_memory_bytes(trial: PlannedTrial, past: Iterable[TrialRecord]) -> int | None:
    """Return the largest peak memory among the most similar trials; None if there is no similar trial."""
    return max((record.peak_memory_bytes for record in _similar(trial, past)), default=None)


def _similar(trial: PlannedTrial | WaitingTrial, past: Iterable[TrialRecord]) -> list[TrialRecord]:
    # A trial on another number of processes takes another time, and other memory.
    processes = trial.cell.config.processes
    finished = [
        record
        for record in past
        if record.status == "finished" and record.config.get("processes") == processes
    ]
    for names in SIMILARITY:
        wanted = [trial.cell.labels[name] for name in names]
        similar = [record for record in finished if [record.labels.get(name) for name in names] == wanted]
        if similar:
            return similar
    return []


def concurrent_trials(trials: Iterable[PlannedTrial], resources: ResourcesConfig) -> int:
    """Return how many trials run at a time on this machine; a cluster may run more."""
    threads = max((trial.cell.config.threads for trial in trials), default=1) * resources.processes_per_trial
    most = max(1, (os.cpu_count() or 1) // threads)
    if resources.gpus > 0 and torch.cuda.is_available():
        most = min(most, max(1, int(torch.cuda.device_count() / resources.gpus)))
    return min(most, resources.max_concurrent or most)


def disk_estimate(trial: PlannedTrial) -> DiskEstimate:
    """Estimate the bytes of checkpoints `best` (and `final`), validation and test embeddings, and `last`."""
    config = trial.cell.config
    images, channels, classes = _counts(trial.data_folder)
    model, parameters = _model_bytes(config.model.model_dump_json(), channels)
    # The size of a loss depends neither on training nor on input and seed.
    reset = {"train": TrainConfig(), "input": None, "seed": 0, "threads": 1, "processes": None}
    objective = _objective_bytes(config.model_copy(update=reset).model_dump_json(), classes)
    row = config.model.embedding_dim * FLOAT_BYTES + 2 * INT_BYTES
    moments = MOMENTS[config.train.optimizer.name] * (parameters + objective)
    checkpoints = 2 if config.train.final else 1
    return DiskEstimate(persistent=checkpoints * model + images * row, temporary=model + objective + moments)


# The three helpers below are cached by text: a sweep of thousands of trials has a handful of models and losses.


@cache
def _counts(folder: Path) -> tuple[int, int, int]:
    """Return the numbers of images to embed, of channels, and of classes to train on."""
    data = PreparedDataset.open(folder)
    embedded = data.manifest.filter(pl.col("split").is_in(["validation", "test"])).height
    classes = data.manifest.filter(pl.col("split") != "test")["class_name"].n_unique()
    return embedded, int(data.summary["channels"]), classes


@cache
def _model_bytes(settings: str, channels: int) -> tuple[int, int]:
    """Return the bytes of the model's state and of its parameters; `settings` is a ModelConfig as JSON."""
    config = ModelConfig.model_validate_json(settings)
    model: nn.Module = meta_model(config, in_channels=channels)
    if config.trunk == "frozen":  # checkpoints leave the frozen trunk out
        trained = ("normalization", "projection")
        model = nn.ModuleDict({name: part for name, part in model.named_children() if name in trained})
    return _bytes(model.state_dict().values()), _bytes(model.parameters())


@cache
def _objective_bytes(settings: str, classes: int) -> int:
    config = TrialConfig.model_validate_json(settings)
    return _bytes(build_objective(config, num_classes=classes).state_dict().values())


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() + HEADER_BYTES for tensor in tensors)


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
    refused = {}
    for trial in trials:
        # What a trial has stored already, in an earlier attempt, is part of `present`.
        more = max(0, estimates[trial.key].persistent - folder_bytes(trial.store_folder))
        if taken + more > budget_bytes:
            refused[trial.key] = (
                f"disk budget: the sweep may use {budget_bytes} bytes (sweep.disk_budget_bytes), {storage} has "
                f"{present} and this trial needs {more} more; not started: raise the budget or remove trials"
            )
        else:
            taken += more
    return refused
