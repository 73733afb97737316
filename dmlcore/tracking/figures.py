"""The figure that every run carries: utility of one threshold against that threshold."""

from __future__ import annotations

from matplotlib.figure import Figure

from dmlcore.records import TrialRecord


def utility_figure(record: TrialRecord) -> Figure:
    """Mean utility over the test classes, with the band from the 10 % to the 90 % class quantile."""
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    curve = record.utility
    axes.fill_between(
        curve["thresholds"], curve["low"], curve["high"], alpha=0.25, label="10 % to 90 % of classes"
    )
    axes.plot(curve["thresholds"], curve["mean"], label="mean over classes")
    axes.set(
        xlabel="distance threshold (calibration range)",
        ylabel="utility (harmonic mean of sensitivity and specificity)",
        ylim=(0.0, 1.0),
        title=f"OPIS {record.metrics.get('test/opis') or float('nan'):.4f}",
    )
    axes.legend(loc="lower right")
    return figure
