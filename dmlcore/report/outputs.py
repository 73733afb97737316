"""Write the files of the `aggregate` stage, all or none; the same input gives the same bytes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from dmlcore.analysis.baselines import baselines
from dmlcore.analysis.columns import Row
from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.embedding import load_trial_embeddings
from dmlcore.analysis.margins import chosen_table, margins_table
from dmlcore.analysis.meta_analysis import forest_table, forests
from dmlcore.analysis.metric_labels import METRICS, round_significant
from dmlcore.analysis.paired_tests import overall_test
from dmlcore.analysis.relations import bend_table, pareto_table, relations
from dmlcore.analysis.searches import search_results
from dmlcore.analysis.study import BASELINE, Study
from dmlcore.analysis.tuned_settings import displayed_study
from dmlcore.core.io import write_together
from dmlcore.metrics.plot import png_bytes
from dmlcore.report.figures.convergence import convergence_figure
from dmlcore.report.figures.embedding import embedding_figure
from dmlcore.report.figures.forest import forest_figure
from dmlcore.report.figures.heat_maps import heat_map_figure
from dmlcore.report.figures.pareto import pareto_figure
from dmlcore.report.figures.search import search_figure
from dmlcore.report.figures.tradeoff import tradeoff_figure
from dmlcore.report.figures.trajectories import trajectories_figure
from dmlcore.report.figures.utility import utility_figure
from dmlcore.report.html.page import report_html
from dmlcore.report.text.exports import csv_text

Files = Iterator[tuple[str, pl.DataFrame | Figure | str]]
"""Name -> what it holds: a table (.csv), a figure (.png) or text."""


def write_results(study: Study, folder: Path) -> None:
    """Write the tables and plots of a study into `folder`, and those of the analyses in `aggregate.parts`.

    baselines.csv, comparisons.csv and metrics.json hold every setting; tradeoff.png, trajectories.png and
    utility_curves.png what `displayed_study` shows; convergence.png every trial; with at least three comparisons
    forest.csv and forest.png. report.html is the page with it all.
    Part `pareto`: pareto.csv, bend.csv, pareto.png. `margins`: margins.csv, chosen.csv, margins.png. `search`:
    search.csv, search.png. `embedding`: embedding.png if the stored embeddings are on this machine; else an earlier
    picture is kept.
    """
    contents: dict[str, str | bytes] = {}
    for name, content in _files(study):
        if isinstance(content, Figure):
            contents[name] = png_bytes(content, study.config.figure.dots_per_inch)
        else:
            contents[name] = csv_text(content) if isinstance(content, pl.DataFrame) else content
    write_together(folder, contents)
    for name in {"forest.csv", "forest.png"} - contents.keys():  # of an earlier run with more comparisons
        (folder / name).unlink(missing_ok=True)


def _files(study: Study) -> Files:
    yield "baselines.csv", baselines(study)
    yield "comparisons.csv", comparisons(study)
    yield "metrics.json", json.dumps(metrics_summary(study), indent=1) + "\n"
    shown = displayed_study(study)
    yield "convergence.png", convergence_figure(study)
    yield "tradeoff.png", tradeoff_figure(shown)
    yield "trajectories.png", trajectories_figure(shown)
    yield "utility_curves.png", utility_figure(shown)
    if found := forests(study):
        yield "forest.csv", forest_table(found)
        yield "forest.png", forest_figure(found, study.config.confidence)
    for part in study.config.parts:
        yield from PARTS[part](study)
    yield "report.html", report_html(study)


def _pareto_files(study: Study) -> Files:
    found = relations(study)
    yield "pareto.csv", pareto_table(study, found)
    yield "bend.csv", bend_table(found)
    yield "pareto.png", pareto_figure(study, found)


def _margins_files(study: Study) -> Files:
    yield "margins.csv", margins_table(study)
    yield "chosen.csv", chosen_table(study)
    yield "margins.png", heat_map_figure(study)


def _search_files(study: Study) -> Files:
    yield "search.csv", search_results(study)
    yield "search.png", search_figure(study)


def _embedding_files(study: Study) -> Files:
    drawn = load_trial_embeddings(study)
    if drawn is not None:
        yield "embedding.png", embedding_figure(study, drawn)
    else:
        print(
            f"aggregate: embedding.png is left as it is: the test embeddings of its trials are not in {study.storage}; "
            "the sweep stage writes them"
        )


PARTS = {
    "pareto": _pareto_files,
    "margins": _margins_files,
    "search": _search_files,
    "embedding": _embedding_files,
}


def metrics_summary(study: Study) -> dict[str, Any]:
    """Return the content of metrics.json, for `dvc metrics`.

    Trials by status; of each variant and metric the signed-rank test over its comparisons (`overall_test`), not over
    those of other variants, which share its baselines; data set -> backbone -> loss -> variant -> mean over finished
    seeds.
    """
    rows = comparisons(study).to_dicts()
    variants = [variant for variant in dict.fromkeys(row["variant"] for row in rows) if variant != BASELINE]
    overall = {variant: _overall([row for row in rows if row["variant"] == variant]) for variant in variants}
    means: dict[str, Any] = {}
    for cell in study.cells:
        losses = means.setdefault(cell.dataset, {}).setdefault(cell.backbone, {})
        losses[cell.loss_text] = {
            variant: {f"test/{m}": round_significant(cell.mean(variant, f"test/{m}")) for m in METRICS}
            for variant in cell.variants
        }
    counts = dict(sorted(Counter(study.trials["status"]).items()))
    return {"trials": counts, "overall": overall, "datasets": means}


def _overall(rows: Sequence[Row]) -> dict[str, Any]:
    found = {}
    for metric in METRICS:
        differences = [row[f"test/{metric}/difference/mean"] for row in rows]
        test = overall_test([difference for difference in differences if difference is not None])
        found[f"test/{metric}"] = {
            "comparisons": test.comparisons,
            "median_difference": round_significant(test.median),
            "wilcoxon_p": round_significant(test.p_value),
            "note": test.note,
        }
    return found
