"""Results put into a document, between two markers."""

from __future__ import annotations

from pathlib import Path

from dmlcore.atomic import write_atomically


def markers(name: str | None = None) -> tuple[str, str]:
    """The lines between which results stand: of any study, or of the one of that name."""
    label = "results" if name is None else f"results {name}"
    return f"<!-- {label} -->", f"<!-- /{label} -->"


def insert_between_markers(path: Path, content: str, name: str | None = None) -> None:
    """Replace what stands between the markers of a Markdown file; the rest stays as it is.

    Args:
        path: the file.
        content: what to put there.
        name: of the study; its own markers are taken where the file has them, else those of any study.

    Raises:
        ValueError: the file does not hold each marker once, in order.
    """
    text = path.read_text(encoding="utf-8")
    start, end = markers(name) if markers(name)[0] in text else markers()
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise ValueError(f"{path} must hold the line {start} once and {end} once after it; add them")
    head, rest = text.split(start)
    tail = rest.split(end)[1]
    write_atomically(path, f"{head}{start}\n{content.strip()}\n{end}{tail}")
