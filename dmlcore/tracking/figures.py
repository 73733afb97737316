"""The figure that every run carries: utility of one threshold against that threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure


def utility_figure(utility: Mapping[str, Sequence[float]], opis: float | None) -> Figure:
    """Mean utility over the classes, with the band from the 10 % to the 90 % class quantile.

    Args:
        utility: `thresholds`, `mean`, `low`, `high`, one value a threshold.
        opis: printed above; None where it is unknown.
    """
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.fill_between(
        utility["thresholds"], utility["low"], utility["high"], alpha=0.25, label="10 % to 90 % of classes"
    )
    axes.plot(utility["thresholds"], utility["mean"], label="mean over classes")
    axes.set(
        xlabel="distance threshold (calibration range)",
        ylabel="utility (harmonic mean of\nsensitivity and specificity)",
        ylim=(0.0, 1.0),
        title="One threshold for all classes" + ("" if opis is None else f": OPIS {opis:.5f}"),
    )
    axes.legend(loc="lower right")
    return figure
