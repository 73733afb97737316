"""The pair of trials, without and with the regulariser, whose stored test embeddings the page looks into.

Shapes: N test images, D width, C classes with a positive pair.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from dmlcore.report.embedding import stored_file
from dmlcore.report.study import OFF, Cell, Study

if TYPE_CHECKING:
    from dmlcore.metrics import Evaluation

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
MOST_IMAGES = 20_000
"""Test images beyond which the page leaves this out: all pairs of 60,000 images take minutes on one core."""
FAR_RANGE, THRESHOLDS = "config/evaluation.far_range", "config/evaluation.num_thresholds"


@dataclass(frozen=True)
class Side:
    """One of the two trials."""

    arm: str
    embeddings: Floats
    """[N, D], L2-normalised."""
    class_labels: Integers
    """[C], ascending."""
    utility: Floats
    """[C], mean over the calibration range of the test negatives."""
    frr: Floats
    """[C], share of the class's positive pairs rejected where the pooled FAR is 0.01."""
    far: Floats
    """[C], share of its negative pairs accepted there."""


@dataclass(frozen=True)
class Pair:
    """Both trials on the same images."""

    cell: Cell
    seed: int
    labels: Integers
    """[N]."""
    index: Integers
    """[N], row of the manifest."""
    is_query: NDArray[np.bool_] | None
    """[N], where queries search a gallery; None where every image does both."""
    off: Side
    on: Side

    @property
    def text(self) -> str:
        return f"{self.cell.dataset}, {self.cell.backbone}, {self.cell.loss_text}, seed {self.seed}"


def stored_pair(study: Study) -> Pair | str:
    """The pair of the most accurate arm, at the first seed that it and `off` both finished; or why there is none.

    Most accurate: the highest mean of `aggregate.accuracy` among the arms that have a stored pair.
    """
    found = [chosen for cell in study.cells for arm in cell.arms if (chosen := _stored(study, cell, arm))]
    if not found:
        return _reason(study)
    cell, arm, seed, off, on = max(found, key=lambda item: _accuracy(study, item[0], item[1]))
    tensors = load_file(on)
    if len(tensors["labels"]) > MOST_IMAGES:
        return f"Left out: all pairs of {len(tensors['labels']):,} test images take minutes; at most {MOST_IMAGES:,}."
    before = load_file(off)
    if not np.array_equal(before["index"], tensors["index"]):
        return f"Left out: the stored embeddings of the two trials of seed {seed} are not of the same images."
    return _pair(cell, arm, seed, before, tensors)


def _stored(study: Study, cell: Cell, arm: str) -> tuple[Cell, str, int, Path, Path] | None:
    if arm == OFF or OFF not in cell.arms:
        return None
    keys = {name: _finished(cell, name) for name in (OFF, arm)}
    for seed in sorted(keys[OFF].keys() & keys[arm].keys()):
        off, on = (stored_file(study, keys[name][seed]) for name in (OFF, arm))
        if off and on:
            return cell, arm, seed, off, on
    return None


def _finished(cell: Cell, arm: str) -> dict[int, str]:
    done = cell.finished[arm]
    return dict(zip(done["seed"].to_list(), done["trial_key"].to_list(), strict=True))


def _accuracy(study: Study, cell: Cell, arm: str) -> float:
    values = list(cell.values(arm, study.config.accuracy).values())
    return float(np.mean(values)) if values else -np.inf


def _reason(study: Study) -> str:
    if study.storage is None or not study.storage.is_dir():
        return "Left out: the stored embeddings of the trials are not on this machine; the sweep stage writes them."
    return "Left out: no seed has the stored test embeddings of a trial without and with the regulariser."


def _pair(cell: Cell, arm: str, seed: int, before: dict[str, Any], after: dict[str, Any]) -> Pair:
    labels, query = np.asarray(after["labels"], np.int64), after.get("is_query")
    is_query = None if query is None else np.asarray(query, bool)
    off, on = (
        _side(name, tensors["embeddings"], labels, is_query, cell.arms[name].row(0, named=True))
        for name, tensors in ((OFF, before), (arm, after))
    )
    return Pair(cell, seed, labels, np.asarray(after["index"], np.int64), is_query, off, on)


def _side(
    arm: str, embeddings: Any, labels: Integers, is_query: NDArray[np.bool_] | None, trial: dict[str, Any]
) -> Side:
    # here, not above: the page of a study without stored embeddings does without torch
    from dmlcore.metrics import evaluate

    far_range = tuple(json.loads(trial.get(FAR_RANGE) or "[0.01, 0.1]"))
    found = evaluate(
        embeddings,
        labels,
        far_range=far_range,
        num_thresholds=trial.get(THRESHOLDS) or 101,
        is_query=is_query,
    )
    points = np.asarray(embeddings, np.float64)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    return Side(arm, unit, np.asarray(found.class_labels, np.int64), _mean(found), found.frr, found.far)


def _mean(found: Evaluation) -> Floats:
    """Mean utility over the range, by the trapezoid rule as in OPIS."""
    width = found.thresholds[-1] - found.thresholds[0]
    if width <= 0:
        return np.asarray(found.utility[:, 0])
    return np.asarray(np.trapezoid(found.utility, found.thresholds, axis=1) / width)
