"""Tables of the page: what a cell shows, and the value that sorting and a recount use."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup, escape

from dmlcore.analysis.metric_labels import format_metric, round_significant


@dataclass(frozen=True)
class TableCell:
    text: str
    value: str | float | int | None = None
    """What the column is sorted by; None: nothing known, always last."""
    note: str = ""
    """Shown smaller, after the text."""
    css_class: str = ""
    link: str | None = None
    images: Sequence[tuple[str, str]] = ()
    """(address of the image, its description)."""


@dataclass(frozen=True)
class TableRow:
    cells: Sequence[TableCell]
    names: Mapping[str, str] = field(default_factory=dict)
    """What the filters choose by: data set, backbone, loss, metric, status."""


@dataclass(frozen=True)
class Table:
    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[TableRow]

    @property
    def body(self) -> Markup:
        """The rows as HTML."""
        # Not by the page's template: a macro call for each of many thousand cells takes seconds
        labels = [escape(column) for column in self.columns]
        return Markup("".join(_row_html(row, labels) for row in self.rows))


def _row_html(row: TableRow, labels: Sequence[Markup]) -> str:
    names = "".join(f' data-{name}="{escape(value)}"' for name, value in row.names.items())
    cells = "".join(_cell_html(*pair) for pair in zip(row.cells, labels, strict=True))
    return f"<tr{names}>\n{cells}</tr>\n"


def _cell_html(cell: TableCell, label: Markup) -> str:
    sort_value = "" if cell.value is None else f' data-value="{escape(cell.value)}"'
    css_class = f' class="{escape(cell.css_class)}"' if cell.css_class else ""
    shown = str(escape(cell.text))
    if cell.link:
        shown = f'<a href="{escape(cell.link)}" rel="noreferrer">{shown}</a>'
    images = "".join(
        f'<img src="{escape(address)}" alt="{escape(name)}" title="{escape(name)}">'
        for address, name in cell.images
    )
    note = f" <small>{escape(cell.note)}</small>" if cell.note else ""
    return f'<td data-label="{label}"{sort_value}{css_class}>{images}{shown}{note}</td>\n'


def drop_constant_columns(table: Table, names: Container[str]) -> Table:
    """Drop the columns of `names` with one text in all rows; the caption then has it, unless it is empty."""
    texts = zip(*([cell.text for cell in row.cells] for row in table.rows), strict=True)
    constant = {i: found.pop() for i, column in enumerate(texts) if len(found := set(column)) == 1}
    dropped = {i: text for i, text in constant.items() if table.columns[i] in names}
    constants = "; ".join(f"{table.columns[i]}: {text}" for i, text in dropped.items() if text)
    kept = [i for i in range(len(table.columns)) if i not in dropped]
    return replace(
        table,
        caption=f"{table.caption} In all rows: {constants}." if constants else table.caption,
        columns=[table.columns[i] for i in kept],
        rows=[replace(row, cells=[row.cells[i] for i in kept]) for row in table.rows],
    )


def text_cell(value: object, css_class: str = "") -> TableCell:
    """Make a cell of text, sorted by it."""
    text = "" if value is None else " ".join(str(value).split())
    return TableCell(text, text or None, css_class=css_class)


def int_cell(value: int | None) -> TableCell:
    """Make a cell of a count."""
    return TableCell("-" if value is None else f"{value:,}", value)


def float_cell(value: float | None, metric: str) -> TableCell:
    """Make a cell of a number with the decimals of its metric."""
    return TableCell(format_metric(value, metric), round_significant(value))
