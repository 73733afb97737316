"""The card of a calibration: what a reader needs to use the threshold, as plain JSON values.

Shapes: C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from dmlcore.calibration.counts import Floats
from dmlcore.calibration.intervals import LEVEL, Rate, drift
from dmlcore.calibration.run import Calibration, SplitRates

KINDS = ("far", "frr")
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
FEW_CLASSES = 200
RULES = {
    "far": "the floor(f M)-th smallest of the M negative distances of validation, a smaller one where distances tie",
    "frr": "the ceil((1 - r) P)-th smallest of the P positive distances of validation",
}
COMPARED = {False: "each image with every other of the split", True: "each query with each gallery image"}
WITHOUT_TEST = (
    "no test set was given: the rates are those of the images that the threshold was set on, so the target holds by "
    "construction, and nothing is known of drift"
)
INTERVAL = (
    f"{100 * LEVEL:g} % t-interval on the log-odds, its standard error robust to pairs that share a class (classes are "
    "the independent draws)"
)
CLASS_INTERVAL = (
    f"{100 * LEVEL:g} % interval of one class: Hoeffding's bound for floor(n / 2) (FRR) or n (FAR) independent draws, "
    "n images of the class. `beyond_limit`: classes whose whole interval is above the limit"
)


def calibration_card(
    found: Calibration,
    *,
    class_names: Sequence[str] | None = None,
    limits: Mapping[str, float] | None = None,
    worst: int = 10,
) -> dict[str, Any]:
    """Write down everything about `found` in JSON values.

    Args:
        found: the result of `calibrate`.
        class_names: [L], name of label 0..L-1 of test (where there is none, of validation); None: labels alone.
        limits: `far`, `frr` -> the largest rate that a class may have; classes that are surely beyond it are all
            listed, as are those whose rate is above it and whose images are too few to be sure.
        worst: how many of the worst classes to list.

    Raises:
        ValueError: a label of test without a name, a limit outside 0..1.
    """
    _check(found.final, "test" if found.test else "validation", class_names, limits or {})
    content: dict[str, Any] = {
        "schema_version": 2,
        "target": {"kind": found.target.kind, "rate": found.target.rate},
        "threshold": {
            "distance": found.threshold.distance,
            "cosine_similarity": found.threshold.similarity,
            "rule": RULES[found.target.kind],
            "use": "accept a pair of L2-normalised embeddings if their L2 distance is at most `distance`",
        },
        "interval": INTERVAL,
        "class_interval": CLASS_INTERVAL,
    }
    content |= {name: split_summary(rates) for name, rates in found.splits.items()}
    content["test" if found.test else "validation"] |= {
        f"class_{kind}": _classes(found.final, kind, class_names, (limits or {}).get(kind), worst)
        for kind in KINDS
    }
    if found.test:
        content["drift"] = _drift(found.validation, found.test)
    return content | {"notes": _notes(found)}


def _drift(validation: SplitRates, test: SplitRates) -> dict[str, Any]:
    return {kind: asdict(drift(getattr(validation, kind), getattr(test, kind))) for kind in KINDS}


def class_rows(rates: SplitRates, class_names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return one row a class, in the order of the labels: counts, rates and their intervals.

    Without a positive pair `frr` and its interval are None.
    """
    frr, known = rates.class_frr, rates.positive_pairs > 0
    (far_low, far_high), (frr_low, frr_high) = (
        rates.class_bounds(kind, 1 - LEVEL) for kind in ("far", "frr")
    )
    return [
        {
            "label": label.item(),
            "name": None if class_names is None else class_names[int(label)],
            "images": int(rates.images[i]),
            "positive_pairs": int(rates.positive_pairs[i]),
            "rejected": int(rates.rejected[i]),
            "frr": float(frr[i]) if known[i] else None,
            "frr_low": float(frr_low[i]) if known[i] else None,
            "frr_high": float(frr_high[i]) if known[i] else None,
            "negative_pairs": int(rates.negative_pairs[i]),
            "accepted": int(rates.accepted[i]),
            "far": float(rates.class_far[i]),
            "far_low": float(far_low[i]),
            "far_high": float(far_high[i]),
        }
        for i, label in enumerate(rates.labels)
    ]


def split_summary(rates: SplitRates) -> dict[str, Any]:
    """Return the sizes, which pairs the rates are over, and the pooled rates of a split."""
    return {
        "compared": COMPARED[rates.query_gallery],
        "images": int(rates.images.sum()),
        "classes": len(rates.labels),
        "classes_without_positive_pair": int((rates.positive_pairs == 0).sum()),
        "far": _pooled(rates.far, "accepted"),
        "frr": _pooled(rates.frr, "rejected"),
    }


def _pooled(rate: Rate, errors: str) -> dict[str, Any]:
    return {"rate": rate.value, "low": rate.low, "high": rate.high, errors: rate.errors, "pairs": rate.pairs}


def _classes(
    rates: SplitRates, kind: str, names: Sequence[str] | None, limit: float | None, worst: int
) -> dict[str, Any]:
    rows = [row for row in class_rows(rates, names) if row[kind] is not None]
    by_rate = sorted(rows, key=lambda row: (-row[kind], row["label"]))
    values: Floats = np.array([row[kind] for row in rows])
    found: dict[str, Any] = {
        "classes": len(rows),
        "mean": float(values.mean()),
        "standard_deviation": float(values.std()),
        "quantiles": {f"{q:g}": float(np.quantile(values, q)) for q in QUANTILES},
        "worst": by_rate[:worst],
    }
    if limit is not None:
        above = [row for row in by_rate if row[kind] > limit]
        found |= {
            "limit": limit,
            "beyond_limit": [row for row in above if row[f"{kind}_low"] > limit],
            "too_few_images_to_say": [row for row in above if row[f"{kind}_low"] <= limit],
        }
    return found


def _notes(found: Calibration) -> list[str]:
    notes = [
        f"{name}: {len(rates.labels)} classes are few: the intervals may be too narrow"
        for name, rates in found.splits.items()
        if len(rates.labels) < FEW_CLASSES
    ]
    notes += [
        f"{name}: {rates.under_two_labels} images are identical to one of another label: remove one label of each"
        for name, rates in found.splits.items()
        if rates.under_two_labels
    ]
    notes += [WITHOUT_TEST] if found.test is None else _test_notes(found, found.test)
    if found.target.kind == "far" and found.validation.far.errors == 0:
        notes.append(
            "the nearest negative pairs of validation tie, more of them than the target allows: the threshold is just "
            "below their distance and accepts none"
        )
    return notes


def _test_notes(found: Calibration, test: SplitRates) -> list[str]:
    notes = []
    if found.shared:
        notes.append(
            f"{found.shared} of the {int(test.images.sum())} images of test are in validation too: the rates on "
            "test are not those of images that the threshold has not seen"
        )
    if found.validation.query_gallery != test.query_gallery:
        notes.append("the two splits compare other pairs (`compared`): part of the drift may come from that")
    return notes


def _check(final: SplitRates, split: str, names: Sequence[str] | None, limits: Mapping[str, float]) -> None:
    if names is not None and not 0 <= int(final.labels[0]) <= int(final.labels[-1]) < len(names):
        raise ValueError(
            f"class names must name each {split} label ({final.labels[0]} to {final.labels[-1]}), got {len(names)} "
            "names; line k + 1 names label k"
        )
    for kind, limit in limits.items():
        if kind not in KINDS or not 0.0 <= limit <= 1.0:
            raise ValueError(f"--{kind}-limit must be a rate in [0, 1], got {limit}")
