"""The trade-off table as text for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dmlcore.analysis.baselines import untrained
from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.convergence import convergence_mark
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
from dmlcore.analysis.verdict import Row, caveats, judgement, verdict
from dmlcore.report.extra_analyses import analysis_sentences, displayed_study

WIDTH = 100


Baselines = dict[tuple[str, str | None], list[str]]
"""(data set, backbone) -> the numbers of METRICS before training; (data set, None) -> of raw pixels."""


STYLES = {"better": "bold blue", "worse": "bold yellow"}


def print_summary(
    study: Study, *, plot: Path | str, results: Path | str, mlflow: str, console: Console | None = None
) -> None:
    """Print the trade-off tables, the baselines, the protocol, the verdict and where everything lies.

    Args:
        study: from `read_study`.
        plot: the trade-off plot.
        results: the table of results.
        mlflow: address of the MLflow store.
        console: where to; by default the terminal, or plain text of 100 columns where there is none.
    """
    out = console or default_console()
    sentences, study = analysis_sentences(study), displayed_study(study)
    rows = comparisons(study).to_dicts()
    baselines = _baselines(study)
    for place in dict.fromkeys((row["dataset"], row["variant"]) for row in rows):
        out.print(_table(baselines, [row for row in rows if (row["dataset"], row["variant"]) == place]))
    reading = f"a±b: mean and half-width of the {format_percent(study.config.confidence)} t-interval over seeds; variant - baseline: "
    reading += "paired by seed; change: better / worse if that interval leaves out 0."
    for text in (reading, LEGEND, *(f"Protocol: {line}" for line in protocol_text(study).splitlines())):
        out.print(Text(text, style="dim"))
    out.print(Text("\n" + verdict(rows, study.config.confidence), style="bold"))
    for text in sentences:
        out.print(Text(text))
    for text in (*caveats(study, rows), "", f"plot     {plot}", f"results  {results}", f"MLflow   {mlflow}"):
        out.print(Text(text), soft_wrap=text.startswith(("plot", "results", "MLflow")))


def default_console() -> Console:
    """The terminal as it is; 100 plain columns where the output is a file or a pipe."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(width=WIDTH, highlight=False)


def markdown_table(study: Study) -> str:
    """The trade-off table for a README: one row a comparison, `off -> on (paired difference)`, protocol and verdict.

    A difference whose interval leaves out 0 is bold. Names stand in code spans, so that nothing in them is markup.
    """
    sentences, study = analysis_sentences(study), displayed_study(study)
    rows = comparisons(study).to_dicts()
    head = ["data set", "backbone", "loss", "variant", "pairs", *(metric_label(metric) for metric in METRICS)]
    lines = [_markdown_row(head), _markdown_row(["---"] * 5 + ["---:"] * len(METRICS))]
    lines += _markdown_baselines(study)
    lines += [
        _markdown_row([*_markdown_names(row), *(_markdown_cell(row, m) for m in METRICS)]) for row in rows
    ]
    confidence = format_percent(study.config.confidence)
    reading = f"Cells: off → on (variant - baseline ± half-width of its {confidence} t-interval); bold if it leaves out 0."
    notes = [reading, LEGEND, *protocol_text(study).splitlines(), verdict(rows, study.config.confidence)]
    return "\n".join(
        [*lines, "", *(f"{_escaped(note)}\n" for note in [*notes, *sentences, *caveats(study, rows)])]
    )


def code_span(text: object) -> str:
    """`text` as a Markdown code span that fits into a table cell."""
    line = one_line(text, 200).replace("`", "'").replace("|", "\\|")
    return f"`{line}`" if line else ""


def _table(baselines: Baselines, rows: Sequence[Row]) -> Table:
    dataset, variant = rows[0]["dataset"], rows[0]["variant"]
    against = "baseline" if variant == BASELINE else f"on = {variant_label(variant)}, against off"
    table = Table(title=Text(f"{dataset}: {against}", style="bold"), title_justify="left")
    table.box, table.padding, table.pad_edge = box.HORIZONTALS, (0, 0), False
    table.add_column("backbone\nloss", overflow="fold", max_width=16)
    table.add_column("test metric", no_wrap=True)
    for name in ("raw\npixels", "un-\ntrained", "baseline", "on", "variant - baseline"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("change", no_wrap=True)
    for row in rows:
        table.add_row(
            _who(row), Text("\n".join(map(metric_label, METRICS))), *_numbers(baselines, row), _changes(row)
        )
        table.add_section()
    return table


def _who(row: Row) -> Text:
    axes = [f"{k.rsplit('.', 1)[-1]} {v}" for k, v in row.items() if k.startswith("axis/")]
    counted, unit = ("baseline", "seeds") if row["variant"] == BASELINE else ("paired", "pairs")
    pairs = f"{row[f'seeds/{counted}']} of {row['seeds/planned']} {unit}"
    lines = [Text(row["backbone"]), Text(row["loss"]), *map(Text, axes)]
    complete = row[f"seeds/{counted}"] == row["seeds/planned"]
    lines.append(Text(pairs, style="dim" if complete else "bold yellow"))
    rising = [Text(convergence_mark(row), style="bold yellow")] if convergence_mark(row) else []
    return Text("\n").join([*lines, *rising])


def _baselines(study: Study) -> Baselines:
    found: Baselines = {}
    for (dataset, backbone), before in untrained(study).items():
        found[dataset, None] = [format_metric(study.raw_pixels(dataset, m), m) for m in METRICS]
        found[dataset, backbone] = [format_metric(before[m].mean, m) for m in METRICS]
    return found


def _numbers(baselines: Baselines, row: Row) -> list[Text]:
    raw, before = baselines[row["dataset"], None], baselines[row["dataset"], row["backbone"]]
    sides = ["baseline", "variant", "difference"] if row["variant"] != BASELINE else ["baseline"]
    columns = [raw, before, *([_mean(row, m, side) for m in METRICS] for side in sides)]
    return [Text("\n".join(column)) for column in [*columns, *([[]] * (5 - len(columns)))]]


def _mean(row: Row, metric: str, side: str) -> str:
    mean, low, high = (row[f"test/{metric}/{side}/{part}"] for part in ("mean", "low", "high"))
    text = format_metric(mean, metric, signed=side == "difference")
    return text if low is None else f"{text}±{format_metric((high - low) / 2, metric)}"


def _changes(row: Row) -> Text:
    words = [judgement(row, metric) for metric in METRICS]
    return Text("\n").join(Text(word, style=STYLES.get(word, "")) for word in words)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_baselines(study: Study) -> list[str]:
    return [
        _markdown_row(
            [
                code_span(d),
                *(["raw pixels", ""] if b is None else [code_span(b), "untrained"]),
                "",
                "",
                *cells,
            ]
        )
        for (d, b), cells in _baselines(study).items()
    ]


def _markdown_names(row: Row) -> list[str]:
    axes = [f"{k.removeprefix('axis/')}={v}" for k, v in row.items() if k.startswith("axis/")]
    names = [row["dataset"], row["backbone"], ", ".join([row["loss"], *axes]), variant_label(row["variant"])]
    return [
        *map(code_span, names),
        f"{row['seeds/paired']} of {row['seeds/planned']} {convergence_mark(row)}".strip(),
    ]


def _markdown_cell(row: Row, metric: str) -> str:
    baseline = format_metric(row[f"test/{metric}/baseline/mean"], metric)
    if row["variant"] == BASELINE:
        return baseline
    difference = _mean(row, metric, "difference").replace("±", " ± ")
    mark = "**" if judgement(row, metric) in STYLES else ""
    return (
        f"{baseline} → {format_metric(row[f'test/{metric}/variant/mean'], metric)} ({mark}{difference}{mark})"
    )


def _escaped(text: str) -> str:
    for character in "\\`*_[]<>$|~#":
        text = text.replace(character, "\\" + character)
    return text.strip()
