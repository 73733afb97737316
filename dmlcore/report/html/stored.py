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

from dmlcore.analysis.embedding import embeddings_path
from dmlcore.analysis.study import BASELINE, Cell, Study

if TYPE_CHECKING:
    from dmlcore.metrics.evaluation import Evaluation


Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


MOST_IMAGES = 20_000
"""Test images beyond which the page leaves this out: all pairs of 60,000 images take minutes on one core."""


FAR_RANGE, THRESHOLDS = "config/evaluation.far_range", "config/evaluation.num_thresholds"


@dataclass(frozen=True)
class Side:
    """One of the two trials."""

    variant: str
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
    baseline: Side
    on: Side

    @property
    def text(self) -> str:
        return f"{self.cell.dataset}, {self.cell.backbone}, {self.cell.loss_text}, seed {self.seed}"


def stored_pair(study: Study) -> Pair | str:
    """The pair of the most accurate variant, at the first seed that it and `baseline` both finished; or why there is none.

    Most accurate: the highest mean of `aggregate.accuracy` among the variants that have a stored pair.
    """
    found = [
        chosen
        for cell in study.cells
        for variant in cell.variants
        if (chosen := _stored(study, cell, variant))
    ]
    if not found:
        return _reason(study)
    cell, variant, seed, baseline, on = max(found, key=lambda item: _accuracy(study, item[0], item[1]))
    tensors = load_file(on)
    if len(tensors["labels"]) > MOST_IMAGES:
        return f"Left out: all pairs of {len(tensors['labels']):,} test images take minutes; at most {MOST_IMAGES:,}."
    before = load_file(baseline)
    if not np.array_equal(before["index"], tensors["index"]):
        return f"Left out: the stored embeddings of the two trials of seed {seed} are not of the same images."
    return _pair(cell, variant, seed, before, tensors)


def _stored(study: Study, cell: Cell, variant: str) -> tuple[Cell, str, int, Path, Path] | None:
    if variant == BASELINE or BASELINE not in cell.variants:
        return None
    keys = {name: _finished(cell, name) for name in (BASELINE, variant)}
    for seed in sorted(keys[BASELINE].keys() & keys[variant].keys()):
        baseline, on = (embeddings_path(study, keys[name][seed]) for name in (BASELINE, variant))
        if baseline and on:
            return cell, variant, seed, baseline, on
    return None


def _finished(cell: Cell, variant: str) -> dict[int, str]:
    done = cell.finished[variant]
    return dict(zip(done["seed"].to_list(), done["trial_key"].to_list(), strict=True))


def _accuracy(study: Study, cell: Cell, variant: str) -> float:
    values = list(cell.values(variant, study.config.accuracy).values())
    return float(np.mean(values)) if values else -np.inf


def _reason(study: Study) -> str:
    if study.storage is None or not study.storage.is_dir():
        return "Left out: the stored embeddings of the trials are not on this machine; the sweep stage writes them."
    return "Left out: no seed has the stored test embeddings of a trial without and with the regulariser."


def _pair(cell: Cell, variant: str, seed: int, before: dict[str, Any], after: dict[str, Any]) -> Pair:
    labels, query = np.asarray(after["labels"], np.int64), after.get("is_query")
    is_query = None if query is None else np.asarray(query, bool)
    baseline, on = (
        _side(name, tensors["embeddings"], labels, is_query, cell.variants[name].row(0, named=True))
        for name, tensors in ((BASELINE, before), (variant, after))
    )
    return Pair(cell, seed, labels, np.asarray(after["index"], np.int64), is_query, baseline, on)


def _side(
    variant: str, embeddings: Any, labels: Integers, is_query: NDArray[np.bool_] | None, trial: dict[str, Any]
) -> Side:
    # here, not above: the page of a study without stored embeddings does without torch
    from dmlcore.metrics.evaluation import evaluate

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
    return Side(variant, unit, np.asarray(found.class_labels, np.int64), _mean(found), found.frr, found.far)


def _mean(found: Evaluation) -> Floats:
    """Mean utility over the range, by the trapezoid rule as in OPIS."""
    width = found.thresholds[-1] - found.thresholds[0]
    if width <= 0:
        return np.asarray(found.utility[:, 0])
    return np.asarray(np.trapezoid(found.utility, found.thresholds, axis=1) / width)
