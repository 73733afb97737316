"""One split from the files that a command line names: embeddings, labels, queries or a gallery, and groups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmlcore.cli.arrays import WHOLE, read_embeddings, read_groups, read_is_query, read_labels

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from dmlcore.metrics.inputs import Array

READERS = {"labels": read_labels, "groups": read_groups, "is_query": read_is_query}


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split, None where one was not given; with a gallery, the first ones are those of the queries."""

    embeddings_option: str
    """How the command line names the embeddings: `--embeddings`, `--validation`."""
    prefix: str
    """How the options of the other files begin: `--`, `--validation-`."""
    embeddings: Path | None
    labels: Path | None
    is_query: Path | None = None
    gallery: Path | None = None
    gallery_labels: Path | None = None
    groups: Path | None = None
    gallery_groups: Path | None = None
    pairs: tuple[Path, Path, Path] | None = None

    def path(self, part: str) -> Path | None:
        """Return the file of a part, as `gallery_labels`."""
        found: Path | None = getattr(self, part)
        return found

    def option(self, part: str) -> str:
        """Return the option of a part, as `--validation-gallery-labels`."""
        return self.embeddings_option if part == "embeddings" else self.prefix + part.replace("_", "-")

    @property
    def files(self) -> list[Path]:
        """All that were given."""
        parts = "embeddings", "labels", "is_query", "gallery", "gallery_labels", "groups", "gallery_groups"
        return [path for path in (*map(self.path, parts), *(self.pairs or ())) if path]


@dataclass(frozen=True)
class Split:
    """One split: `embeddings [N, D]`, `labels [N]`, `is_query [N]`, `groups [N]`, None where there are none."""

    embeddings: Array
    labels: Array
    is_query: Array | None = None
    groups: Array | None = None
    ignore_label: int | str | None = None
    """Of the kind of the labels; its images are still there."""
    names: tuple[str, ...] | None = None
    """Of the labels 0..L-1, where they are known."""


def read_split(files: SplitFiles, ignore_label: str | None = None) -> Split:
    """Read one split; the rows of a gallery are put below those of the queries.

    Raises:
        ValueError: options that do not belong together; a file that is damaged, of another kind or length.
    """
    import numpy as np

    _check_options(files)
    x, labels, groups, is_query = _read_side(files, "embeddings", "labels", "groups", "is_query")
    if files.gallery:
        gallery, *theirs = _read_side(files, "gallery", "gallery_labels", "gallery_groups")
        is_query = np.arange(len(x) + len(gallery)) < len(x)
        x, labels = _stack(files, x, gallery), _join(files, "labels", labels, theirs[0])
        groups = None if groups is None else _join(files, "groups", groups, theirs[1])
    return Split(x, labels, is_query, groups, _label(files, ignore_label, labels))


def _check_options(files: SplitFiles) -> None:
    embeddings, labels, is_query, gallery, gallery_labels, groups, gallery_groups = map(
        files.option,
        ("embeddings", "labels", "is_query", "gallery", "gallery_labels", "groups", "gallery_groups"),
    )
    if not (files.embeddings and files.labels):
        missing = labels if files.embeddings else embeddings
        raise ValueError(f"give {embeddings} and {labels}; {missing} is missing")
    if bool(files.gallery) != bool(files.gallery_labels):
        raise ValueError(f"{gallery} and {gallery_labels} belong together; give both or neither")
    if files.gallery and files.is_query:
        raise ValueError(f"give {is_query}, or {gallery} with {gallery_labels}, not both")
    if bool(files.gallery_groups) != bool(files.gallery and files.groups):
        raise ValueError(
            f"{gallery_groups} goes with {gallery} and {groups}; give the groups of both or of neither"
        )


@contextmanager
def _naming(option: str) -> Iterator[None]:
    """Begin each error with the option of its file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _read_side(files: SplitFiles, embeddings: str, *parts: str) -> tuple[Any, ...]:
    """Read embeddings and what belongs to each of their rows, None for what was not given."""
    from dmlcore.metrics.arrays import as_embeddings

    path = files.path(embeddings)
    assert path is not None
    with _naming(files.option(embeddings)):
        x = as_embeddings(read_embeddings(path))
        if x.ndim != 2:
            raise ValueError(f"{path} must be [N, D], one row per image, got {list(x.shape)}; reshape it")
    return x, *(_read_values(files, part, path, len(x)) for part in parts)


def _read_values(files: SplitFiles, part: str, embeddings: Path, rows: int) -> NDArray[np.generic] | None:
    from dmlcore.metrics.arrays import check_labels

    path, kind = files.path(part), part.removeprefix("gallery_")
    if path is None:
        return None
    with _naming(files.option(part)):
        found: Any = READERS[kind](path)
        values = found if kind == "is_query" else check_labels(found, kind)
        if values.shape != (rows,):
            what = {"labels": "label", "groups": "group", "is_query": "value"}[kind]
            raise ValueError(
                f"{path} must have one {what} for each of the {rows} rows of {embeddings}, got {list(values.shape)}; "
                "write both from the same images"
            )
    checked: NDArray[np.generic] = values
    return checked


def _stack(files: SplitFiles, queries: torch.Tensor, gallery: torch.Tensor) -> torch.Tensor:
    import torch

    if queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"{files.option('embeddings')} and {files.option('gallery')} must have one width, got "
            f"{list(queries.shape)} and {list(gallery.shape)}; embed both with one model"
        )
    return torch.cat([queries, gallery])


def _join(
    files: SplitFiles, part: str, queries: NDArray[np.generic], gallery: NDArray[np.generic]
) -> NDArray[np.generic]:
    """Join labels or groups; NumPy would turn integers into texts without a word, and large ones into floats."""
    import numpy as np

    joined: NDArray[np.generic] = np.concatenate([queries, gallery])
    texts = {values.dtype.kind in "SU" for values in (queries, gallery)}
    if len(texts) > 1 or joined.dtype.kind == "f":
        raise ValueError(
            f"{files.option(part)} and {files.option('gallery_' + part)} must both be integers of one type or both be "
            f"names, got {queries.dtype} and {gallery.dtype}; write them alike"
        )
    return joined


def _label(files: SplitFiles, text: str | None, labels: NDArray[np.generic]) -> int | str | None:
    """Return the label to ignore in the kind of the labels, so that -1 is the label -1 of either."""
    if text is None or labels.dtype.kind in "SU":
        return text
    if not WHOLE.fullmatch(text):
        raise ValueError(
            f"--ignore-label must be an integer, as those of {files.option('labels')} are, got {text!r:.80}"
        )
    return int(text)
