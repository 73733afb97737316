"""The table over several studies, as text for a terminal and as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dmlcore.analysis.effects import UNDECIDED, format_share
from dmlcore.analysis.metric_labels import variant_label
from dmlcore.analysis.overview import Tally
from dmlcore.report.text.tables import code_span, default_console, markdown_row

HEAD = (
    "study",
    "variant",
    "pairs",
    "more even / less even / undecided",
    "MAP@R higher / lower / undecided",
    "MAP@R where decided",
    "at equal accuracy: more even / less even / open",
)
READING = (
    "Pairs: comparisons of the variant with the baseline. Decided: all trials of both sides have converged, as a "
    "longer run confirms, and the interval of the paired difference of corrected OPIS or MAP@R leaves out 0. At equal "
    "accuracy: of the comparisons whose paths through training meet there. A comparison of the same trials in two "
    "studies is counted once over all."
)


def print_overview(tallies: Sequence[Tally], console: Console | None = None) -> None:
    """Print the table; by default to the terminal, or as plain text of 100 columns where there is none."""
    out, table = console or default_console(), Table(box=box.SIMPLE)
    study, variant, pairs, even, accurate, change, matched = HEAD
    table.add_column(f"{study}\n{variant}", overflow="fold", min_width=40)
    for name in (pairs, even, f"{accurate}\n{change}", matched):
        table.add_column(name, overflow="fold", max_width=14)
    for tally in tallies:
        study, variant, pairs, even, accurate, change, matched = _cells(tally)
        # As Text: brackets in a name are no markup
        table.add_row(Text(f"{study}\n{variant}"), pairs, even, f"{accurate}\n{change}", matched)
    out.print(table)
    out.print(READING)


def markdown_overview(tallies: Sequence[Tally]) -> str:
    """Return the table as Markdown. Names are in code spans, so that nothing in them is markup."""
    lines = [list(HEAD), ["---"] * 2 + ["---:"] * (len(HEAD) - 2)]
    for tally in tallies:
        study, variant, *counts = _cells(tally)
        names = (code_span(study) if tally.study else study, code_span(variant) if tally.variant else variant)
        lines.append([*names, *counts])
    return "\n".join([*map(markdown_row, lines), "", READING])


def _cells(tally: Tally) -> tuple[str, ...]:
    """Return the cells of a row, of which the last has no names."""
    ends = [format_share(change) for change in (*tally.changes[:1], *tally.changes[-1:])]
    return (
        tally.study or "over all",
        variant_label(tally.variant) if tally.variant else "",
        str(tally.comparisons),
        _counts(tally.inconsistency),
        _counts(tally.accuracy),
        " to ".join(dict.fromkeys(ends)) or "-",
        _counts(tally.matched) if tally.matched else "-",
    )


def _counts(outcomes: Counter[str]) -> str:
    return " / ".join(str(outcomes[outcome]) for outcome in ("better", "worse", UNDECIDED))
