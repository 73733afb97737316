"""The analyses that a study asks for in `aggregate.parts`: their files and their sentences."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import polars.selectors as cs
from matplotlib.figure import Figure

from dmlcore.analysis.embedding import load_trial_embeddings
from dmlcore.analysis.findings import (
    embedding_sentences,
    margins_sentences,
    pareto_sentences,
    search_sentences,
)
from dmlcore.analysis.margins import chosen_table, margins_table
from dmlcore.analysis.metric_labels import SIGNIFICANT_DIGITS
from dmlcore.analysis.relations import bend_table, pareto_table, relations
from dmlcore.analysis.study import Study
from dmlcore.analysis.tuned_settings import chosen_study
from dmlcore.core.io import write_atomically
from dmlcore.metrics.plot import png_bytes
from dmlcore.report.figures.embedding import embedding_figure
from dmlcore.report.figures.heat_maps import heat_map_figure
from dmlcore.report.figures.pareto import pareto_figure


def write_extra_analyses(study: Study, folder: Path) -> None:
    """Write the files of each analysis of `aggregate.parts` into `folder`.

    `pareto`: pareto.csv, bend.csv, pareto.png. `margins`: margins.csv, chosen.csv, margins.png. `embedding`:
    embedding.png if the stored embeddings are on this machine; else an earlier picture is kept.
    """
    for part in study.config.parts:
        WRITERS[part](study, folder)


def analysis_sentences(study: Study) -> list[str]:
    """Return what the searches and the extra analyses of the study found, with the numbers."""
    found = [sentence for part in study.config.parts for sentence in SENTENCES[part](study)]
    return search_sentences(study) + found


def displayed_study(study: Study) -> Study:
    """Return what tables and plots compare: all of it, or the chosen settings alone where part `margins` chooses."""
    return chosen_study(study) if "margins" in study.config.parts else study


def csv_text(table: pl.DataFrame) -> str:
    """Return the table as CSV, floats to 6 significant digits, null as an empty field."""
    return table.with_columns(cs.float().round_sig_figs(SIGNIFICANT_DIGITS)).write_csv()


def _write_pareto(study: Study, folder: Path) -> None:
    found = relations(study)
    write_atomically(folder / "pareto.csv", csv_text(pareto_table(study, found)))
    write_atomically(folder / "bend.csv", csv_text(bend_table(found)))
    _write_png(study, folder / "pareto.png", pareto_figure(study, found))


def _write_margins(study: Study, folder: Path) -> None:
    write_atomically(folder / "margins.csv", csv_text(margins_table(study)))
    write_atomically(folder / "chosen.csv", csv_text(chosen_table(study)))
    _write_png(study, folder / "margins.png", heat_map_figure(study))


def _write_embedding(study: Study, folder: Path) -> None:
    drawn = load_trial_embeddings(study)
    if drawn is None:
        print(
            f"aggregate: embedding.png is left as it is: the test embeddings of its trials are not in {study.storage}; "
            "the sweep stage writes them"
        )
        return
    _write_png(study, folder / "embedding.png", embedding_figure(study, drawn))


def _write_png(study: Study, path: Path, figure: Figure) -> None:
    write_atomically(path, png_bytes(figure, study.config.figure.dots_per_inch))


WRITERS = {"pareto": _write_pareto, "margins": _write_margins, "embedding": _write_embedding}
SENTENCES = {"pareto": pareto_sentences, "margins": margins_sentences, "embedding": embedding_sentences}
