"""The trade-off table as text for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dmlcore.analysis.baselines import FEATURES, UNTRAINED, before_training
from dmlcore.analysis.columns import (
    SUMMARY,
    TERMINAL,
    IntervalColumn,
    Row,
    axes_of,
    columns_of,
    judgement,
    loss_text,
    seeds_text,
)
from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.convergence import convergence_mark
from dmlcore.analysis.findings import analysis_sentences, caveats
from dmlcore.analysis.metric_labels import (
    LEGEND,
    METRICS,
    format_metric,
    format_percent,
    metric_label,
    one_line,
    variant_label,
)
from dmlcore.analysis.protocol import protocol_text
from dmlcore.analysis.study import BASELINE, Study
from dmlcore.analysis.tuned_settings import displayed_study
from dmlcore.analysis.verdict import verdict

WIDTH = 100
STYLES = {"better": "bold blue", "worse": "bold yellow"}
WARNING = "bold yellow"

UntrainedBaselines = dict[tuple[str, str | None], list[str]]
"""(data set, backbone) -> the numbers of METRICS before training; (data set, None) -> of raw pixels."""


def print_summary(
    study: Study, *, plot: Path | str | None, results: Path | str, mlflow: str, console: Console | None = None
) -> None:
    """Print the trade-off tables, the untrained baselines, the protocol, the verdict and where the files are.

    Args:
        study: from `read_study`.
        plot: the trade-off plot, if there is one.
        results: the table of results.
        mlflow: address of the MLflow store.
        console: by default the terminal, or plain text of 100 columns where there is none.
    """
    out = console or default_console()
    sentences, study = analysis_sentences(study), displayed_study(study)
    rows = comparisons(study).to_dicts()
    before = _untrained_baselines(study)
    for group in dict.fromkeys((row["dataset"], row["variant"]) for row in rows):
        out.print(_table(before, [row for row in rows if (row["dataset"], row["variant"]) == group]))
    reading = (
        f"a±b: mean and half-width of the {format_percent(study.config.confidence)} t-interval over seeds; difference: "
        "variant - baseline, paired by seed; judged: better / worse if the interval of the difference excludes 0."
    )
    for text in (reading, LEGEND, *(f"Protocol: {line}" for line in protocol_text(study).splitlines())):
        out.print(Text(text, style="dim"))
    for headline, details in verdict(study, rows):
        out.print(Text(f"\n{headline}", style="bold"))
        out.print(Text(details))
    for text in (*sentences, *caveats(study, rows), ""):
        out.print(Text(text))
    drawn = [] if plot is None else [f"plot     {plot}"]
    for text in (*drawn, f"results  {results}", f"MLflow   {mlflow}"):
        out.print(Text(text), soft_wrap=True)  # a path that is broken over two lines cannot be copied


def default_console() -> Console:
    """Return the terminal, or 100 plain columns where the output is a file or a pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(width=WIDTH, highlight=False)


def markdown_table(study: Study) -> str:
    """Return the verdict, then the trade-off table for a README: one row a comparison, its notes and the protocol.

    A cell is `baseline → variant (paired difference)`; a difference whose interval excludes 0 is bold. Names are in
    code spans, so that nothing in them is markup.
    """
    sentences, study = analysis_sentences(study), displayed_study(study)
    rows, confidence = comparisons(study).to_dicts(), study.config.confidence
    head = ["data set", "backbone", "loss", "variant", "pairs", *map(metric_label, METRICS)]
    lines = [head, ["---"] * 5 + ["---:"] * len(METRICS), *_untrained_rows(study)]
    lines += [[*_names(row), *(_summary_cell(row, metric) for metric in METRICS)] for row in rows]
    reading = (
        f"Cells: baseline → variant (variant - baseline ± half-width of its {format_percent(confidence)} t-interval); "
        "bold if the interval excludes 0."
    )
    notes = [reading, LEGEND, *protocol_text(study).splitlines()]
    escaped = [f"{_escape_markdown(note)}\n" for note in (*notes, *sentences, *caveats(study, rows))]
    return "\n".join([*_worded(study, rows), *map(markdown_row, lines), "", *escaped])


def markdown_verdict(study: Study) -> str:
    """Return the verdict of what the study displays, for places that show no table."""
    shown = displayed_study(study)
    return "\n".join(_worded(shown, comparisons(shown).to_dicts()))


def _worded(study: Study, rows: Sequence[Row]) -> list[str]:
    return [
        f"**{_escape_markdown(headline)}** {_escape_markdown(details)}".strip() + "\n"
        for headline, details in verdict(study, rows)
    ]


def markdown_row(cells: Sequence[str]) -> str:
    """Return one line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def code_span(text: object) -> str:
    """Return `text` as a Markdown code span that fits into a table cell."""
    line = one_line(text, 200).replace("`", "'").replace("|", "\\|")
    return f"`{line}`" if line else ""


def _table(before: UntrainedBaselines, rows: Sequence[Row]) -> Table:
    dataset, variant = rows[0]["dataset"], rows[0]["variant"]
    compared = "baseline" if variant == BASELINE else f"{variant_label(variant)}, against baseline"
    table = Table(title=Text(f"{dataset}: {compared}", style="bold"), title_justify="left")
    table.box, table.padding, table.pad_edge = box.HORIZONTALS, (0, 0), False
    table.add_column("backbone\nloss", overflow="fold", max_width=16)
    table.add_column("test metric", no_wrap=True)
    columns = columns_of(TERMINAL)
    for label in ("raw\npixels", "un-\ntrained", *(column.label for column in columns)):
        table.add_column(label, justify="left" if label == "judged" else "right", no_wrap=True)
    for row in rows:
        cells = [before[dataset, None], before[dataset, row["backbone"]]]
        cells += [[column.text(row, m).replace(" ± ", "±") for m in METRICS] for column in columns]
        table.add_row(_configuration(row), _stack([metric_label(m) for m in METRICS]), *map(_stack, cells))
        table.add_section()
    return table


def _stack(cells: Sequence[str]) -> Text:
    """Put one cell a metric below each other."""
    return Text("\n").join(Text(cell, style=STYLES.get(cell, "")) for cell in cells)


def _configuration(row: Row) -> Text:
    axes = [f"{path.rsplit('.', 1)[-1]} {value}" for path, value in axes_of(row).items()]
    seeds, unit = seeds_text(row), "seeds" if row["variant"] == BASELINE else "pairs"
    complete = seeds == f"{row['seeds/planned']} of {row['seeds/planned']}"
    lines = [*map(Text, (row["backbone"], row["loss"], *axes))]
    lines.append(Text(f"{seeds} {unit}", style="dim" if complete else WARNING))
    if mark := convergence_mark(row):
        lines.append(Text(mark, style=WARNING))
    return Text("\n").join(lines)


def _untrained_baselines(study: Study) -> UntrainedBaselines:
    found: UntrainedBaselines = {}
    for (dataset, backbone), before in before_training(study, UNTRAINED).items():
        found[dataset, None] = [format_metric(study.raw_pixels(dataset, m), m) for m in METRICS]
        found[dataset, backbone] = [format_metric(before[m].mean, m) for m in METRICS]
    return found


def _untrained_rows(study: Study) -> list[list[str]]:
    rows = []
    for (dataset, backbone), numbers in _untrained_baselines(study).items():
        name = ["raw pixels", ""] if backbone is None else [code_span(backbone), "before training"]
        rows.append([code_span(dataset), *name, "", "", *numbers])
    for (dataset, backbone), found in before_training(study, FEATURES).items():
        if found["map_at_r"].seeds:
            numbers = [format_metric(found[m].mean, m) for m in METRICS]
            rows.append(
                [code_span(dataset), code_span(backbone), "pretrained features, no head", "", "", *numbers]
            )
    return rows


def _names(row: Row) -> list[str]:
    names = [row["dataset"], row["backbone"], loss_text(row), variant_label(row["variant"])]
    pairs = f"{row['seeds/paired']} of {row['seeds/planned']} {convergence_mark(row)}".strip()
    return [*map(code_span, names), pairs]


def _summary_cell(row: Row, metric: str) -> str:
    """Return `baseline → variant (difference)`, any further column of SUMMARY after the difference."""
    baseline, variant, difference, *others = columns_of(SUMMARY)
    before, after = (c.mean_text(row, metric) for c in (baseline, variant) if isinstance(c, IntervalColumn))
    if row["variant"] == BASELINE:
        return before
    bold = "**" if judgement(row, metric) in STYLES else ""
    more = [f"{column.label} {column.text(row, metric)}" for column in others]
    return f"{before} → {after} ({'; '.join([f'{bold}{difference.text(row, metric)}{bold}', *more])})"


def _escape_markdown(text: str) -> str:
    # The backslash first, or it would escape those that escape the others
    for character in "\\`*_[]<>$|~#":
        text = text.replace(character, "\\" + character)
    return text.strip()
