"""The figure that every run carries: utility of one threshold against that threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from dmlcore.utility_plot import curve_figure


def utility_figure(utility: Mapping[str, Sequence[float]], opis: float | None) -> Figure:
    """Mean utility over the classes, with the band from the 10 % to the 90 % class quantile.

    Args:
        utility: `thresholds`, `mean`, `low`, `high`, one value a threshold.
        opis: printed above; None where it is unknown.
    """
    thresholds, mean, low, high = (utility[name] for name in ("thresholds", "mean", "low", "high"))
    score = "" if opis is None else f": OPIS {opis:.5f}"
    title = f"One threshold for all classes{score}\nline: mean over classes; band: 10 % to 90 % of classes"
    return curve_figure(thresholds, mean, low, high, span=(thresholds[0], thresholds[-1]), title=title)
