"""The plot of a calibration: the operating point, the rates of other thresholds, of the classes and of the groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dmlcore.calibration.groups import PARTS, GroupRates
from dmlcore.calibration.intervals import Rate
from dmlcore.calibration.run import Calibration
from dmlcore.calibration.splits import SplitRates
from dmlcore.metrics.plot import COLOURS, add_footer, house_style, new_figure, png_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = NDArray[np.object_]
KINDS = ("far", "frr")
NAMES = {"far": "False accepts (FAR)", "frr": "False rejects (FRR)"}
SPLIT_COLOURS = {"validation": COLOURS[1], "test": COLOURS[0]}
PART_MARKERS = {"within": "o", "across": "D"}
MOST_GROUPS_DRAWN = 20
READING = (
    "Points with bars, and bands: rates at the threshold with their 95 % intervals; a gap between validation and test "
    "is drift. Classes: sorted by their rate; a flat line = one threshold serves all alike."
)


def calibration_png(found: Calibration, limits: Mapping[str, float]) -> bytes:
    """Draw the plot as PNG.

    Args:
        found: a result of `dmlcore.calibration.calibrate_targets`; its upper panels need `curves=True`.
        limits: `far`, `frr` -> the largest rate that a class may have.
    """
    with house_style():
        return png_bytes(_figure(found, limits))


def _figure(found: Calibration, limits: Mapping[str, float]) -> Figure:
    shown: list[Callable[[Row, Calibration, Mapping[str, float]], None]] = []
    shown += [_curves] if found.final.curve else []
    shown += [_all_classes] if found.final.labels.size else []
    shown += [_all_groups] if found.final.groups else []
    heights = [4.0 if row is not _all_groups else 1.2 + 0.32 * _drawn(found) for row in shown]
    figure = new_figure(9.5, 0.9 + sum(heights))
    axes = figure.subplots(len(shown), 2, squeeze=False, height_ratios=heights)
    for draw_row, row in zip(shown, axes, strict=True):
        draw_row(row, found, limits)
    figure.suptitle(_title(found), fontsize=11)
    add_footer(figure, READING)
    return figure


def _title(found: Calibration) -> str:
    target, threshold = found.target, found.threshold
    rate = f" of {100 * target.rate:g} %" if target.rate else ""
    name = {"cost": "least cost", "f1": "best F1"}.get(target.kind, target.kind.upper() + rate)
    promise = (
        f", promised with {100 * target.confidence:g} % confidence" if target.confidence else " on validation"
    )
    return f"Distance {threshold.distance:.4f} (cosine {threshold.similarity:.4f}): {name}{promise}"


def _curves(axes: Row, found: Calibration, _: object) -> None:
    trade, over = axes
    for name, rates in found.splits.items():
        _trade_off(trade, rates, name)
        _over_distance(over, rates, name)
    over.axvline(found.threshold.distance, color="#333333", linewidth=1.0, linestyle=":")
    over.set_xlabel("distance threshold (L2); dotted: the one that was set")
    over.set_ylabel("rate")
    over.set_ylim(0.0, 1.0)
    over.set_title("Rates over thresholds", fontsize=10)
    trade.set_xscale("log")
    trade.set_yscale("log")
    for axis in (trade.xaxis, trade.yaxis):  # a power of ten needs mathtext, which the house style turns off
        axis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axis.set_minor_formatter("")
    trade.set_xlabel("FAR")
    trade.set_ylabel("FRR")
    trade.set_title("Trade-off of all thresholds (DET) and the one that was set", fontsize=10)
    for ax in axes:
        ax.legend(fontsize=7.5, frameon=False)


def _trade_off(ax: Axes, rates: SplitRates, name: str) -> None:
    curve, colour = rates.curve, SPLIT_COLOURS[name]
    assert curve is not None
    inside = (curve.far > 0) & (curve.frr > 0)
    ax.plot(curve.far[inside], curve.frr[inside], color=colour, linewidth=1.4, label=name)
    if rates.far.errors and rates.frr.errors:
        ends = [
            [[max(rate.value - rate.low, 0.0)], [max(rate.high - rate.value, 0.0)]]
            for rate in (rates.far, rates.frr)
        ]
        ax.errorbar(
            *(rates.far.value, rates.frr.value),
            xerr=ends[0],
            yerr=ends[1],
            color=colour,
            fmt="o",
            markersize=4,
            capsize=3,
            linewidth=1.6,
        )


def _over_distance(ax: Axes, rates: SplitRates, name: str) -> None:
    curve = rates.curve
    assert curve is not None
    distance = np.sqrt(np.maximum(2.0 - 2.0 * curve.similarity, 0.0))
    for kind, style in (("far", "-"), ("frr", "--")):
        values = getattr(curve, kind)
        ax.plot(
            distance, values, style, color=SPLIT_COLOURS[name], linewidth=1.4, label=f"{name}: {kind.upper()}"
        )


def _all_classes(axes: Row, found: Calibration, limits: Mapping[str, float]) -> None:
    for kind, ax in zip(KINDS, axes, strict=True):
        ax.set_title(f"{NAMES[kind]} of the classes", fontsize=10)
        _classes(ax, found.final, kind, list(found.splits)[-1])
        for name, rates in found.splits.items():
            _band(ax, getattr(rates, kind), name, SPLIT_COLOURS[name])
        if kind == found.target.kind:
            _level(ax, found.target.limit, "target", COLOURS[6], ":")
        if kind in limits:
            _level(ax, limits[kind], "limit for a class", COLOURS[3], "--")
        ax.legend(fontsize=7.5, frameon=False, loc="best")


def _classes(ax: Axes, split: SplitRates, kind: str, name: str) -> None:
    rates = split.class_far if kind == "far" else split.class_frr
    known = np.sort(rates[np.isfinite(rates)])
    ax.plot((np.arange(len(known)) + 0.5) / len(known), known, color="#333333", linewidth=1.6)
    ax.set_xlim(0.0, 1.0)
    ax.set_ylim(0.0, max(1.05 * float(known[-1]), 1.0e-6))
    ax.set_xlabel(f"share of the {len(known)} {name} classes")
    ax.set_ylabel("rate of the class")


def _band(ax: Axes, rate: Rate, name: str, colour: str) -> None:
    ax.axhspan(rate.low, rate.high, color=colour, alpha=0.2, linewidth=0)
    ax.axhline(rate.value, color=colour, linewidth=1.2, label=f"{name}: {100 * rate.value:.3g} %")


def _level(ax: Axes, rate: float, name: str, colour: str, style: str) -> None:
    ax.axhline(rate, color=colour, linestyle=style, label=f"{name}: {100 * rate:g} %")


def _drawn(found: Calibration) -> int:
    return min(len(found.final.groups), MOST_GROUPS_DRAWN)


def _all_groups(axes: Row, found: Calibration, _: object) -> None:
    split, count = list(found.splits)[-1], len(found.final.groups)
    for kind, ax in zip(KINDS, axes, strict=True):
        groups = sorted(found.final.groups, key=lambda group: _worst(group, kind))[-MOST_GROUPS_DRAWN:]
        of = f", the {len(groups)} worst of {count}" if count > len(groups) else ""
        ax.set_title(f"{NAMES[kind]} of the groups of {split}{of}", fontsize=10)
        for place, group in enumerate(groups):
            _group(ax, group, kind, place)
        ax.set_yticks(range(len(groups)), [f"{group.name}"[:24] for group in groups])
        ax.set_ylim(-0.6, len(groups) - 0.4)
        ax.set_xlim(left=0.0)
        ax.set_xlabel("rate with its 95 % interval")
        if kind == found.target.kind:
            ax.axvline(found.target.limit, color=COLOURS[6], linestyle=":", label="target")
        handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        ax.legend(handles.values(), handles.keys(), fontsize=7.5, frameon=False)


def _worst(group: GroupRates, kind: str) -> float:
    return max((rate.value for part in PARTS if (rate := group.rates[part][kind])), default=-1.0)


def _group(ax: Axes, group: GroupRates, kind: str, place: int) -> None:
    for part, colour, shift in (("within", COLOURS[2], 0.13), ("across", COLOURS[4], -0.13)):
        if rate := group.rates[part][kind]:
            ax.plot([rate.low, rate.high], [place + shift] * 2, color=colour, linewidth=1.8)
            ax.plot(rate.value, place + shift, PART_MARKERS[part], color=colour, markersize=5, label=part)
