"""The plot of `dmlcore monitor`: nearest neighbours and tests of an unlabelled set, or the rates of a labelled one."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dmlcore.calibration.reference import QUANTILES
from dmlcore.metrics.plot import COLOURS, add_footer, house_style, new_figure, png_bytes


def monitor_png(found: dict[str, Any], card: dict[str, Any]) -> bytes:
    """Draw the plot as PNG from the result of `monitor_unlabelled` or `monitor_labelled` and its card."""
    with house_style():
        return png_bytes(_unlabelled(found, card) if "tests" in found else _labelled(found))


def _unlabelled(found: dict[str, Any], card: dict[str, Any]) -> Figure:
    figure = new_figure(9.5, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.2))
    for values, name, colour in (
        (card["reference"]["nearest_quantiles"], "validation", COLOURS[1]),
        (found["nearest_quantiles"], f"new, {found['images']} images", COLOURS[0]),
    ):
        left.plot(values, QUANTILES, color=colour, linewidth=1.6, label=name)
    left.axvline(card["threshold"]["cosine_similarity"], color="#333333", linestyle=":", label="threshold")
    left.set_xlabel("cosine similarity of the nearest neighbour")
    left.set_ylabel("share of the images with less")
    left.set_title("Nearest neighbours", fontsize=10)
    left.legend(fontsize=7.5, frameon=False)
    for place, test in enumerate(reversed(found["tests"].values())):
        _shift(right, test, place)
    names = [
        test["what"].replace(" of ", "\nof ").replace(" (", "\n(")
        for test in reversed(found["tests"].values())
    ]
    right.set_yticks(range(len(names)), names)
    right.set_ylim(-0.6, len(names) - 0.4)
    right.axvline(0.0, color="#333333", linewidth=1.0)
    right.set_xlabel("new - expected, in standard errors")
    right.set_title("Shift", fontsize=10)
    verdict = f"shifted: {', '.join(found['shifted'])}" if found["shifted"] else "no shift found"
    figure.suptitle(f"{verdict} (level {100 * found['level']:g} %)", fontsize=11)
    add_footer(
        figure,
        "Bars: 2 standard errors, found by leaving out blocks of images in turn. Expected: from validation, for as "
        "many images.",
    )
    return figure


def _shift(ax: Axes, test: dict[str, Any], place: int) -> None:
    t = (test["new"] - test["validation"]) / test["standard_error"]
    ax.plot([t - 2.0, t + 2.0], [place, place], color=COLOURS[0], linewidth=1.8)
    ax.plot(t, place, "o", color=COLOURS[0], markersize=6)
    ax.annotate(
        f"p = {test['p_value']:.2g}", (t, place), (0, 7), textcoords="offset points", ha="center", fontsize=8
    )


def _labelled(found: dict[str, Any]) -> Figure:
    figure = new_figure(8.0, 3.6)
    for kind, ax in zip(("far", "frr"), figure.subplots(1, 2), strict=True):
        rate = found[kind]
        ax.plot([0, 0], [rate["low"], rate["high"]], color=COLOURS[0], linewidth=2.0)
        ax.plot(
            0, rate["rate"], "o", color=COLOURS[0], markersize=6, label=f"new: {100 * rate['rate']:.3g} %"
        )
        if kind in found["limits"]:
            limit = found["limits"][kind]
            ax.axhline(limit, color=COLOURS[1], linestyle=":", label=f"to be at most: {100 * limit:g} %")
        ax.set_xticks([])
        ax.set_ylim(bottom=0.0)
        ax.set_title(kind.upper(), fontsize=10)
        ax.legend(fontsize=7.5, frameon=False)
    verdict = (
        f"{', '.join(found['broken']).upper()} surely above" if found["broken"] else "nothing against it"
    )
    figure.suptitle(f"The card's threshold on {found['images']} new images: {verdict}", fontsize=11)
    add_footer(figure, "Bars: 95 % intervals, classes as the independent draws.")
    return figure
