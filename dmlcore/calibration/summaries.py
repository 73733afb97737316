"""The rates of a split as JSON values: pooled, and class by class.

Shapes: C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dmlcore.calibration.counts import Floats
from dmlcore.calibration.groups import GroupRates
from dmlcore.calibration.identification import Identification
from dmlcore.calibration.intervals import LEVEL, Rate
from dmlcore.calibration.splits import SplitRates

SEARCHED = {
    True: "the queries whose class has no gallery image",
    False: "none were given: each query was also searched in the gallery without its own class",
}
KINDS = ("far", "frr")
ERRORS = {"far": "accepted", "frr": "rejected"}
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
COMPARED = {
    "all": "each image with every other of the split",
    "query_gallery": "each query with each gallery image",
    "listed": "the pairs that were listed",
}


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
    content = {
        "compared": COMPARED[rates.compared],
        "images": int(rates.images.sum()),
        "classes": len(rates.labels),
        "classes_without_positive_pair": int((rates.positive_pairs == 0).sum()),
        "far": _pooled(rates.far, ERRORS["far"]),
        "frr": _pooled(rates.frr, ERRORS["frr"]),
    }
    if rates.compared == "listed":
        del content["classes"], content["classes_without_positive_pair"]
    if rates.groups:
        content["groups"] = [group_summary(group) for group in rates.groups]
    return content | ({"identification": _searches(rates.identification)} if rates.identification else {})


def _searches(found: Identification) -> dict[str, Any]:
    return {
        "gallery_images": found.gallery,
        "unknown_queries": SEARCHED[found.unknown],
        "fpir": _pooled(found.false_positive, "returned"),
        "fnir": _pooled(found.false_negative, "missed"),
    }


def group_summary(group: GroupRates) -> dict[str, Any]:
    """Return the sizes of a group and its rates within and across, None where it has no such pair."""
    rates = {
        part: {kind: rate and _pooled(rate, ERRORS[kind]) for kind, rate in kinds.items()}
        for part, kinds in group.rates.items()
    }
    return {"group": group.name, "images": group.images, "classes": group.classes, **rates}


def surely_above(groups: Sequence[GroupRates], kind: str, limit: float) -> list[str]:
    """Name the groups, and which of their pairs, whose whole interval is above the limit."""
    return [
        f"{group.name} ({part} {100 * rate.value:.3g} %)"
        for group in groups
        for part, kinds in group.rates.items()
        if (rate := kinds[kind]) and rate.low > limit
    ]


def _pooled(rate: Rate, errors: str) -> dict[str, Any]:
    return {"rate": rate.value, "low": rate.low, "high": rate.high, errors: rate.errors, "pairs": rate.pairs}


def class_summary(
    rates: SplitRates, kind: str, names: Sequence[str] | None, limit: float | None, worst: int
) -> dict[str, Any]:
    """Return how the `far` or `frr` of the classes spreads, the worst ones, and those beyond a limit."""
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
