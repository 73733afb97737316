"""The card of a calibration: what a reader needs to use the threshold, as plain JSON values; and its plot.

Shapes: C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dmlcore.calibration.counts import Floats
from dmlcore.calibration.intervals import LEVEL, Rate, drift
from dmlcore.calibration.run import Calibration, SplitRates
from dmlcore.metrics.plot import COLOURS, add_footer, house_style, new_figure, png_bytes

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
FEW_CLASSES = 200
RULES = {
    "far": "the ceil(f M)-th smallest of the M negative distances of validation",
    "frr": "the ceil((1 - r) P)-th smallest of the P positive distances of validation",
}
COMPARED = {False: "each image with every other of the split", True: "each query with each gallery image"}
INTERVAL = (
    f"{100 * LEVEL:g} % t-interval on the log-odds, its standard error robust to pairs that share a class (classes are "
    "the independent draws)"
)
TITLES = {"far": "False accepts (FAR)", "frr": "False rejects (FRR)"}
READING = (
    "Line: the test classes, sorted by their rate; a flat line = one threshold serves all classes alike. Bands: pooled "
    "rate of the split with its 95 % interval, so the gap between them is the drift."
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
        class_names: [L], name of test label 0..L-1; None: labels alone.
        limits: `far`, `frr` -> the largest rate that a class may have; classes beyond it are all listed.
        worst: how many of the worst classes to list.

    Raises:
        ValueError: a label of test without a name, a limit outside 0..1.
    """
    _check(found.test, class_names, limits or {})
    return {
        "schema_version": 1,
        "target": {"kind": found.target.kind, "rate": found.target.rate},
        "threshold": {
            "distance": found.threshold.distance,
            "cosine_similarity": found.threshold.similarity,
            "rule": RULES[found.target.kind],
            "use": "accept a pair of L2-normalised embeddings if their L2 distance is at most `distance`",
        },
        "interval": INTERVAL,
        "validation": split_summary(found.validation),
        "test": split_summary(found.test)
        | {
            f"class_{kind}": _classes(found.test, kind, class_names, (limits or {}).get(kind), worst)
            for kind in ("far", "frr")
        },
        "drift": {
            kind: asdict(drift(getattr(found.validation, kind), getattr(found.test, kind)))
            for kind in ("far", "frr")
        },
        "notes": _notes(found),
    }


def class_rows(rates: SplitRates, class_names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return one row a class, in the order of the labels: counts and rates; `frr` None without a positive pair."""
    frr = rates.class_frr
    return [
        {
            "label": label.item(),
            "name": None if class_names is None else class_names[int(label)],
            "images": int(rates.images[i]),
            "positive_pairs": int(rates.positive_pairs[i]),
            "rejected": int(rates.rejected[i]),
            "frr": float(frr[i]) if rates.positive_pairs[i] else None,
            "negative_pairs": int(rates.negative_pairs[i]),
            "accepted": int(rates.accepted[i]),
            "far": float(rates.class_far[i]),
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
        found |= {"limit": limit, "beyond_limit": [row for row in by_rate if row[kind] > limit]}
    return found


def _notes(found: Calibration) -> list[str]:
    notes = [
        f"{name}: {len(rates.labels)} classes are few: the intervals may be too narrow"
        for name, rates in (("validation", found.validation), ("test", found.test))
        if len(rates.labels) < FEW_CLASSES
    ]
    if found.validation.query_gallery != found.test.query_gallery:
        notes.append("the two splits compare other pairs (`compared`): part of the drift may come from that")
    far = found.validation.far
    # The order statistic alone puts the FAR over its target by less than one pair; more is ties.
    if found.target.kind == "far" and far.errors - 1 > found.target.rate * far.pairs:
        notes.append(f"distances tie at the threshold: validation FAR is {far.value:g}, over the target")
    return notes


def _check(test: SplitRates, names: Sequence[str] | None, limits: Mapping[str, float]) -> None:
    if names is not None and not 0 <= int(test.labels[0]) <= int(test.labels[-1]) < len(names):
        raise ValueError(
            f"class names must name each test label ({test.labels[0]} to {test.labels[-1]}), got {len(names)} names; "
            "line k + 1 names label k"
        )
    for kind, limit in limits.items():
        if kind not in ("far", "frr") or not 0.0 <= limit <= 1.0:
            raise ValueError(f"--{kind}-limit must be a rate in [0, 1], got {limit}")


def calibration_png(found: Calibration, limits: Mapping[str, float]) -> bytes:
    """Draw how the error rates spread over the classes, and how they drifted, as PNG; a panel each for FAR and FRR.

    Args:
        found: the result of `calibrate`.
        limits: `far`, `frr` -> the largest rate that a class may have.
    """
    with house_style():
        return png_bytes(_figure(found, limits))


def _figure(found: Calibration, limits: Mapping[str, float]) -> Figure:
    figure = new_figure(9.0, 4.4)
    for kind, ax in zip(("far", "frr"), figure.subplots(1, 2), strict=True):
        ax.set_title(TITLES[kind], fontsize=10)
        _draw_classes(ax, found.test, kind)
        _band(ax, getattr(found.validation, kind), "validation", COLOURS[1])
        _band(ax, getattr(found.test, kind), "test", COLOURS[0])
        if kind == found.target.kind:
            _level(ax, found.target.rate, "target", COLOURS[6], ":")
        if kind in limits:
            _level(ax, limits[kind], "limit for a class", COLOURS[3], "--")
        ax.legend(fontsize=7.5, frameon=False, loc="upper left")
    target = f"{found.target.kind.upper()} of {100 * found.target.rate:g} % on validation"
    figure.suptitle(f"One threshold, distance {found.threshold.distance:.4f}, set for {target}", fontsize=11)
    add_footer(figure, READING)
    return figure


def _draw_classes(ax: Axes, test: SplitRates, kind: str) -> None:
    rates = test.class_far if kind == "far" else test.class_frr
    known = np.sort(rates[np.isfinite(rates)])
    ax.plot((np.arange(len(known)) + 0.5) / len(known), known, color="#333333", linewidth=1.6)
    ax.set_xlim(0.0, 1.0)
    ax.set_ylim(0.0, max(1.05 * float(known[-1]), 1.0e-6))
    ax.set_xlabel(f"share of the {len(known)} test classes")
    ax.set_ylabel("rate of the class")


def _band(ax: Axes, rate: Rate, name: str, colour: str) -> None:
    ax.axhspan(rate.low, rate.high, color=colour, alpha=0.2, linewidth=0)
    ax.axhline(rate.value, color=colour, linewidth=1.2, label=f"{name}: {100 * rate.value:.3g} %")


def _level(ax: Axes, rate: float, name: str, colour: str, style: str) -> None:
    ax.axhline(rate, color=colour, linestyle=style, label=f"{name}: {100 * rate:g} %")
