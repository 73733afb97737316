"""Write the files of the `aggregate` stage, each atomically; the same input gives the same bytes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from dmlcore.analysis.baselines import baselines
from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.metric_labels import METRICS, round_significant
from dmlcore.analysis.paired_tests import overall_tests
from dmlcore.analysis.statistics import mean_and_deviation
from dmlcore.analysis.study import Cell, Study
from dmlcore.core.io import write_atomically
from dmlcore.metrics.plot import png_bytes
from dmlcore.report.extra_analyses import csv_text, displayed_study, write_extra_analyses
from dmlcore.report.figures.convergence import convergence_figure
from dmlcore.report.figures.tradeoff import tradeoff_figure
from dmlcore.report.figures.utility import utility_figure
from dmlcore.report.html.page import report_html


def write_results(study: Study, folder: Path) -> None:
    """Write the tables and plots of a study into `folder`, and those of its extra analyses.

    baselines.csv, comparisons.csv and metrics.json hold every setting; tradeoff.png and utility_curves.png what
    `displayed_study` shows; convergence.png every trial. report.html is the page with all of it.
    """
    write_atomically(folder / "baselines.csv", csv_text(baselines(study)))
    write_atomically(folder / "comparisons.csv", csv_text(comparisons(study)))
    write_atomically(folder / "metrics.json", json.dumps(metrics_summary(study), indent=1) + "\n")
    shown = displayed_study(study)
    figures = {
        "convergence": convergence_figure(study),
        "tradeoff": tradeoff_figure(shown),
        "utility_curves": utility_figure(shown),
    }
    for name, figure in figures.items():
        write_atomically(folder / f"{name}.png", png_bytes(figure, study.config.figure.dots_per_inch))
    write_extra_analyses(study, folder)
    write_atomically(folder / "report.html", report_html(study))


def metrics_summary(study: Study) -> dict[str, Any]:
    """Return the content of metrics.json, for `dvc metrics`.

    Trials by status; of each metric the signed-rank test over all comparisons (`overall_tests`); data set ->
    backbone -> loss -> variant -> mean over finished seeds.
    """
    overall = {
        f"test/{metric}": {
            "comparisons": test.comparisons,
            "median_difference": round_significant(test.median),
            "wilcoxon_p": round_significant(test.p_value),
            "note": test.note,
        }
        for metric, test in overall_tests(comparisons(study).to_dicts(), tuple(METRICS)).items()
    }
    means: dict[str, Any] = {}
    for cell in study.cells:
        losses = means.setdefault(cell.dataset, {}).setdefault(cell.backbone, {})
        losses[cell.loss_text] = {
            variant: {f"test/{m}": _mean(cell, variant, f"test/{m}") for m in METRICS}
            for variant in cell.variants
        }
    counts = dict(sorted(Counter(study.trials["status"]).items()))
    return {"trials": counts, "overall": overall, "datasets": means}


def _mean(cell: Cell, variant: str, metric: str) -> float | None:
    values = list(cell.values(variant, metric).values())
    return round_significant(mean_and_deviation(values)[0]) if values else None
