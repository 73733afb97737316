"""A table put into a document, between two markers."""

from __future__ import annotations

from pathlib import Path

from dmlcore.atomic import write_atomically

START, END = "<!-- results -->", "<!-- /results -->"


def insert_between_markers(path: Path, content: str) -> None:
    """Replace what stands between the markers of a Markdown file; the rest stays as it is.

    Raises:
        ValueError: the file does not hold each marker once, in order.
    """
    text = path.read_text(encoding="utf-8")
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f"{path} must hold the line {START} once and {END} once after it; add them")
    head, rest = text.split(START)
    tail = rest.split(END)[1]
    write_atomically(path, f"{head}{START}\n{content.strip()}\n{END}{tail}")
