"""Part `embedding`: 2-D embeddings of the test images with and without the regulariser, and each class's utility."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load_file

from dmlcore.analysis.metric_labels import format_metric, metric_label
from dmlcore.analysis.study import Cell, Study

Floats = NDArray[np.float64]
TITLE_METRICS = ("opis", "opis_corrected", "map_at_r", "recall_at_1")


@dataclass(frozen=True)
class TrialEmbeddings:
    """A trial with its stored test embeddings."""

    cell: Cell
    variant: str
    row: dict[str, Any]
    embeddings: Floats
    """[N, 2], as the embedder gave them."""
    labels: NDArray[np.int64]


def embeddings_path(study: Study, trial_key: str) -> Path | None:
    """The test embeddings of a trial (`TRAIN-EVAL`), where they are on this machine."""
    if study.storage is None:
        return None
    path = study.storage / trial_key.split("-")[0] / "test.safetensors"
    return path if path.is_file() else None


def first_trials(study: Study) -> list[tuple[Cell, str, dict[str, Any]]]:
    """Of each cell and variant the first finished seed; the same seed for all variants of a cell where they share one."""
    found = []
    for cell in study.cells:
        done = {
            variant: trials.filter(pl.col("status") == "finished")
            for variant, trials in cell.variants.items()
        }
        done = {variant: trials for variant, trials in done.items() if not trials.is_empty()}
        shared = set.intersection(*(set(trials["seed"]) for trials in done.values())) if done else set()
        for variant, trials in done.items():
            mine = trials.filter(pl.col("seed") == min(shared)) if shared else trials
            found.append((cell, variant, mine.row(0, named=True)))
    return found


def load_trial_embeddings(study: Study) -> list[TrialEmbeddings] | None:
    """The trials to draw; None unless the embeddings of all of them are here.

    Raises:
        ValueError: embeddings that are not two-dimensional.
    """
    found = []
    for cell, variant, row in first_trials(study):
        path = embeddings_path(study, row["trial_key"])
        if path is None:
            return None
        tensors = load_file(path)
        embeddings = np.asarray(tensors["embeddings"], dtype=np.float64)
        if embeddings.ndim != 2 or embeddings.shape[1] != 2:
            raise ValueError(
                f"`aggregate.parts: [embedding]` draws embeddings of width 2, {row['trial_key']} has shape "
                f"{embeddings.shape}; set `model.embedding_dim: 2` or leave the part out"
            )
        found.append(
            TrialEmbeddings(cell, variant, row, embeddings, np.asarray(tensors["labels"], dtype=np.int64))
        )
    return found or None


def embedding_sentences(study: Study) -> list[str]:
    """The numbers of the trials that the picture shows."""
    return [
        f"{row['dataset']} {row['backbone']} {cell.loss_text} {variant}, seed {row['seed']}: {metrics_text(row)}."
        for cell, variant, row in first_trials(study)
    ]


def metrics_text(row: dict[str, Any]) -> str:
    """OPIS and accuracy of a trial, for a title."""
    return ", ".join(f"{metric_label(m)} {format_metric(row.get(f'test/{m}'), m)}" for m in TITLE_METRICS)
