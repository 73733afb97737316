"""The trials of the analysis `embedding`, with their stored 2-D test embeddings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from dmlcore.analysis.metric_labels import format_metric, metric_label
from dmlcore.analysis.protocol import FAR_RANGE_COLUMN
from dmlcore.analysis.study import Cell, Study
from dmlcore.records import KEY, RecordError, RecordFolder

Floats = NDArray[np.float64]
TITLE_METRICS = ("opis", "opis_corrected", "map_at_r", "recall_at_1")


@dataclass(frozen=True)
class TrialEmbeddings:
    """A trial with its stored test embeddings."""

    cell: Cell
    variant: str
    row: dict[str, Any]
    embeddings: Floats
    """[N, 2], not normalised."""
    labels: NDArray[np.int64]


def embeddings_path(study: Study, trial_key: str) -> Path | None:
    """Return the file of the test embeddings of a trial (`TRAIN-EVAL`); None if it is not on this machine."""
    if study.storage is None or not KEY.fullmatch(trial_key):
        return None
    path = study.storage / trial_key.split("-")[0] / "test.safetensors"
    return path if path.is_file() else None


def stored_tensors(study: Study, trial_key: str) -> dict[str, NDArray[Any]] | None:
    """Read the stored test embeddings of a trial; None unless they have the sha256 that its record holds."""
    path = embeddings_path(study, trial_key)
    if path is None or study.records is None:
        return None
    try:
        record = RecordFolder(study.records).read(trial_key)
    except RecordError:
        return None
    content = path.read_bytes()
    if record is None or hashlib.sha256(content).hexdigest() != record.files.get("test"):
        return None
    return load(content)


def far_range(row: Mapping[str, Any]) -> tuple[float, float]:
    """Return the FARs between which a trial was calibrated, by default 0.01 to 0.1."""
    low, high = json.loads(row.get(FAR_RANGE_COLUMN) or "[0.01, 0.1]")
    return low, high


def first_trials(study: Study) -> list[tuple[Cell, str, dict[str, Any]]]:
    """Return the first finished seed of each cell and variant, if possible one that all variants of the cell share."""
    found = []
    for cell in study.cells:
        done = {variant: trials for variant, trials in cell.finished.items() if not trials.is_empty()}
        # Trials of one seed share split and initial weights: their pictures differ by the regulariser alone
        shared = set.intersection(*(set(trials["seed"]) for trials in done.values())) if done else set()
        for variant, trials in done.items():
            chosen = trials.filter(seed=min(shared)) if shared else trials
            found.append((cell, variant, chosen.row(0, named=True)))
    return found


def load_trial_embeddings(study: Study) -> list[TrialEmbeddings] | None:
    """Load the trials to draw; None unless the embeddings of all of them are on this machine, unchanged.

    Raises:
        ValueError: embeddings that are not two-dimensional.
    """
    found = []
    for cell, variant, row in first_trials(study):
        tensors = stored_tensors(study, row["trial_key"])
        if tensors is None:
            return None
        embeddings = np.asarray(tensors["embeddings"], dtype=np.float64)
        if embeddings.ndim != 2 or embeddings.shape[1] != 2:
            raise ValueError(
                f"`aggregate.parts: [embedding]` draws embeddings of width 2, got shape {embeddings.shape} of trial "
                f"{row['trial_key']}; set `model.embedding_dim: 2` or remove this part"
            )
        found.append(
            TrialEmbeddings(cell, variant, row, embeddings, np.asarray(tensors["labels"], dtype=np.int64))
        )
    return found or None


def metrics_text(row: dict[str, Any]) -> str:
    """Return OPIS and accuracy of a trial, for a title."""
    return ", ".join(f"{metric_label(m)} {format_metric(row.get(f'test/{m}'), m)}" for m in TITLE_METRICS)
