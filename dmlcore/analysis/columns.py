"""The columns of comparisons, declared once for the terminal, Markdown, LaTeX, HTML and CSV tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

from dmlcore.analysis.metric_labels import METRICS, format_metric
from dmlcore.analysis.paired_tests import PairedTest
from dmlcore.analysis.statistics import Estimate, PairedDifference
from dmlcore.analysis.study import BASELINE

Row = Mapping[str, Any]
"""A row of `comparisons`."""

TERMINAL, SUMMARY, EXPORTS, HTML = "terminal", "summary", "exports", "html"
"""What shows columns: `dmlcore summary` in the terminal and as Markdown, the Markdown and LaTeX files of `dmlcore
export`, and report.html. The CSV and parquet files have all numbers."""
EVERYWHERE = frozenset({TERMINAL, SUMMARY, EXPORTS, HTML})


class MetricComparison(NamedTuple):
    """What is known of one metric of a variant against the baseline of its cell."""

    baseline: Estimate
    variant: Estimate
    paired: PairedDifference
    test: PairedTest


@dataclass(frozen=True)
class Column:
    """One number of a comparison and metric."""

    name: str
    """Its column of the CSV is `test/METRIC/NAME`."""
    label: str
    value: Callable[[MetricComparison], Any]
    format: Callable[[float, str], str] = format_metric
    """(value, metric) -> text."""
    tables: Set[str] = EVERYWHERE

    def numbers(self, metric: str, found: MetricComparison) -> dict[str, float | None]:
        """Return the columns of the CSV."""
        return {f"test/{metric}/{self.name}": self.value(found)}

    def sort_value(self, row: Row, metric: str) -> Any:
        """Return what a table is sorted by; None for no value."""
        return row[f"test/{metric}/{self.name}"]

    def text(self, row: Row, metric: str) -> str:
        """Return what a table shows; `-` for no value."""
        value = row[f"test/{metric}/{self.name}"]
        return "-" if value is None else self.format(value, metric)


@dataclass(frozen=True)
class IntervalColumn(Column):
    """A mean with its interval: `test/METRIC/NAME/mean`, `.../low` and `.../high` of the CSV."""

    signed: bool = False

    def numbers(self, metric: str, found: MetricComparison) -> dict[str, float | None]:
        estimate: Estimate = self.value(found)
        return estimate.columns(f"test/{metric}/{self.name}")

    def sort_value(self, row: Row, metric: str) -> float | None:
        return self._ends(row, metric)[0]

    def text(self, row: Row, metric: str) -> str:
        mean, (_, low, high) = self.mean_text(row, metric), self._ends(row, metric)
        return mean if low is None or high is None else f"{mean} ± {format_metric((high - low) / 2, metric)}"

    def mean_text(self, row: Row, metric: str) -> str:
        """Return the mean alone."""
        return format_metric(self._ends(row, metric)[0], metric, signed=self.signed)

    def range_text(self, row: Row, metric: str) -> str:
        """Return the interval alone, `LOW to HIGH`; empty without one."""
        ends = self._ends(row, metric)[1:]
        return "" if None in ends else " to ".join(format_metric(e, metric, signed=self.signed) for e in ends)

    def _ends(self, row: Row, metric: str) -> tuple[float | None, float | None, float | None]:
        # A baseline alone is its own variant in the CSV; a table would show the same numbers twice
        if self.name == "variant" and row["variant"] == BASELINE:
            return None, None, None
        name = f"test/{metric}/{self.name}"
        return row[f"{name}/mean"], row[f"{name}/low"], row[f"{name}/high"]


@dataclass(frozen=True)
class JudgementColumn(Column):
    """The verdict on a difference, which the tables derive from its interval; the CSV has the interval alone."""

    def numbers(self, metric: str, found: MetricComparison) -> dict[str, float | None]:
        return {}

    def sort_value(self, row: Row, metric: str) -> str:
        return judgement(row, metric)

    def text(self, row: Row, metric: str) -> str:
        return judgement(row, metric)


def judgement(row: Row, metric: str) -> str:
    """Return `better` or `worse` if the interval of the difference leaves out 0, else `unclear`; `-` without one."""
    low, high = row[f"test/{metric}/difference/low"], row[f"test/{metric}/difference/high"]
    if low is None or high is None:
        return "-"
    if low <= 0 <= high:
        return "unclear"
    return "better" if (low > 0) == METRICS[metric].higher_is_better else "worse"


def format_p(p: float, _: str) -> str:
    """Return a p-value as papers print it: 3 decimals, `<0.001` below."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _format_change(share: float, _: str) -> str:
    return f"{100 * share:+.1f}\N{NO-BREAK SPACE}%"


def _format_effect(effect: float, _: str) -> str:
    return f"{effect:+.2f}"


def _format_count(count: float, _: str) -> str:
    return f"{count:,.0f}"


DIFFERENCE = IntervalColumn("difference", "difference", lambda c: c.paired.difference, signed=True)

COLUMNS: tuple[Column, ...] = (
    IntervalColumn("baseline", "baseline", lambda c: c.baseline),
    IntervalColumn("variant", "variant", lambda c: c.variant),
    DIFFERENCE,
    Column("difference/relative", "relative change", lambda c: c.paired.relative, _format_change, {HTML}),
    JudgementColumn("judgement", "judged", lambda _: None, tables={TERMINAL, HTML}),
    Column("difference/p_value", "p", lambda c: c.test.p_value, format_p, {HTML}),
    Column("difference/p_holm", "p (Holm)", lambda c: c.test.p_holm, format_p, {EXPORTS, HTML}),
    Column("difference/effect_size", "effect g", lambda c: c.test.effect_size, _format_effect, {HTML}),
    Column("difference/seeds_needed", "seeds needed", lambda c: c.test.seeds_needed, _format_count, {HTML}),
)
"""In the order of the tables. A column added here is in all of them."""


def columns_of(table: str) -> list[Column]:
    """Return the columns that `table` (TERMINAL, SUMMARY, EXPORTS or HTML) shows."""
    return [column for column in COLUMNS if table in column.tables]


def axes_of(row: Row) -> dict[str, str | None]:
    """Return swept config path -> value of a row."""
    return {key.removeprefix("axis/"): row[key] for key in row if key.startswith("axis/")}


def loss_text(row: Row) -> str:
    """Return the loss, with the swept axes where there are any."""
    return ", ".join([row["loss"], *(f"{path}={value}" for path, value in axes_of(row).items())])


def seeds_text(row: Row) -> str:
    """Return how many of the planned seeds the row has: pairs, or seeds of a baseline without a variant."""
    return (
        f"{row['seeds/baseline' if row['variant'] == BASELINE else 'seeds/paired']} of {row['seeds/planned']}"
    )
