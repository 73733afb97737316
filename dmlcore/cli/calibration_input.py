"""The splits of `dmlcore calibrate` and `monitor`, from files or from a trial: embeddings, labels, queries, groups."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dmlcore.cli.arrays import read_embeddings, read_labels
from dmlcore.cli.options import finished_trial, split_class_names
from dmlcore.core.hashing import file_sha256

if TYPE_CHECKING:
    from dmlcore.metrics.inputs import Array

    Listed = tuple[Array, Array, Array]

TWO_MODELS = (
    "the trial was trained again on validation classes too (`train.final`): validation was embedded by the model "
    "chosen on it, test by the final one, so part of the drift is between two models"
)


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split as the command line names them, `name` first in each option."""

    name: str
    embeddings: Path | None
    labels: Path | None
    is_query: Path | None = None
    gallery: Path | None = None
    gallery_labels: Path | None = None
    groups: Path | None = None
    pairs: tuple[Path, Path, Path] | None = None

    @property
    def given(self) -> bool:
        return bool(self.files)

    @property
    def files(self) -> list[Path]:
        """All that were given."""
        single = self.embeddings, self.labels, self.is_query, self.gallery, self.gallery_labels, self.groups
        return [path for path in (*single, *(self.pairs or ())) if path]


@dataclass(frozen=True)
class Split:
    """One split: `embeddings [N, D]`, `labels [N]`, `is_query [N]`, `groups [N]`, the names of labels 0..L-1."""

    embeddings: Array
    labels: Array
    is_query: Array | None = None
    groups: Array | None = None
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class CalibrationData:
    """Both splits, and what is known of the trial that they come from."""

    validation: Split | Listed
    test: Split | Listed | None
    inputs: dict[str, str] = field(default_factory=dict)
    """The sha256 of each file."""
    trial_key: str | None = None
    note: str | None = None

    @property
    def names(self) -> tuple[str, ...] | None:
        """The class names of the split whose classes are listed."""
        listed = self.test or self.validation
        return listed.names if isinstance(listed, Split) else None


def read_splits(
    validation: SplitFiles, test: SplitFiles, names: Path | None, ignore_label: str | None
) -> CalibrationData:
    """Read validation, and test if any of its files is given.

    Raises:
        ValueError: files that do not belong together, or names given twice.
    """
    held_out = _read_either(validation, ignore_label)
    final = _read_either(test, ignore_label) if test.given else None
    if final and isinstance(final, Split) != isinstance(held_out, Split):
        raise ValueError("give both splits as listed pairs, or both as images with labels")
    inputs = {str(path): file_sha256(path) for path in (*validation.files, *test.files)}
    if names is None:
        return CalibrationData(held_out, final, inputs)
    listed = final or held_out
    if not isinstance(listed, Split) or listed.names:
        files = test if final else validation
        raise ValueError(
            f"{files.labels or files.name} has names of its own or no classes; leave out --class-names"
        )
    named = replace(listed, names=_read_names(names))
    return CalibrationData(held_out, named, inputs) if final else CalibrationData(named, None, inputs)


def _read_either(files: SplitFiles, ignore_label: str | None) -> Split | Listed:
    if files.pairs is None:
        return read_split(files, ignore_label)
    if len(files.files) > len(files.pairs) or ignore_label is not None:
        raise ValueError(
            f"--{files.name}-pairs has all of the split; leave out its other files and --ignore-label"
        )
    first, second, same = files.pairs
    return read_embeddings(first), read_embeddings(second), read_labels(same)


def read_split(files: SplitFiles, ignore_label: str | None = None) -> Split:
    """Read one split; labels that are names become integers.

    Raises:
        ValueError: a file that is missing, damaged or of another length.
    """
    import numpy as np

    x, labels, is_query = _read_rows(files)
    groups = None if files.groups is None else read_labels(files.groups)
    if files.groups and groups is not None:
        _check_length(files.groups, groups, files.embeddings or files.groups, x, "group")
    if ignore_label is not None:
        keep = np.asarray(labels).astype(np.str_) != ignore_label
        x, labels = x[keep], labels[keep]
        is_query, groups = (None if part is None else part[keep] for part in (is_query, groups))
    ids, names = _class_ids(labels)
    return Split(x, ids, is_query, groups, names)


def _read_rows(files: SplitFiles) -> tuple[Array, Array, Array | None]:
    name = files.name
    if files.embeddings is None or files.labels is None:
        given = [f"--{name}", f"--{name}-labels"][files.embeddings is not None]
        raise ValueError(f"give --{name} and --{name}-labels, or --trial; {given} is missing")
    x, labels = read_embeddings(files.embeddings), read_labels(files.labels)
    _check_length(files.labels, labels, files.embeddings, x)
    if files.gallery is None and files.gallery_labels is None:
        is_query = None if files.is_query is None else _read_mask(files.is_query)
        return x, labels, is_query
    if files.is_query or files.gallery is None or files.gallery_labels is None:
        raise ValueError(
            f"give --{name}-gallery and --{name}-gallery-labels together, and no --{name}-is-query: queries and "
            "gallery are two files or one with a mask"
        )
    return _join((files.labels, files.gallery, files.gallery_labels), x, labels)


def _join(paths: tuple[Path, Path, Path], x: Array, labels: Array) -> tuple[Array, Array, Array]:
    """Put the gallery's rows below the queries'."""
    import numpy as np

    from dmlcore.metrics.arrays import as_embeddings, check_labels

    gallery, theirs = read_embeddings(paths[1]), read_labels(paths[2])
    _check_length(paths[2], theirs, paths[1], gallery)
    if x.ndim != 2 or gallery.ndim != 2 or x.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"queries and gallery must have the same width, got {tuple(x.shape)} and {tuple(gallery.shape)}; embed "
            "both with one model"
        )
    ours, others = check_labels(labels), check_labels(theirs)
    if (ours.dtype.kind in "SU") != (others.dtype.kind in "SU"):
        raise ValueError(f"{paths[0]} and {paths[2]} must both have integers or both have names")
    rows = [as_embeddings(part).numpy() for part in (x, gallery)]
    mask = np.arange(len(x) + len(gallery)) < len(x)
    return np.concatenate(rows), np.concatenate([ours, others]), mask


def _read_mask(path: Path) -> Array:
    import numpy as np

    mask = np.asarray(read_labels(path))
    if mask.dtype.kind not in "biu" or mask.ndim != 1 or not np.isin(mask, (0, 1)).all():
        raise ValueError(
            f"{path} must have 0 or 1 (or a bool) for each row, got {mask.dtype} {list(mask.shape)}"
        )
    return mask.astype(np.bool_)


def _check_length(path: Path, values: Array, other: Path, rows: Array, what: str = "label") -> None:
    if len(values) != len(rows):
        raise ValueError(
            f"{path} must have one {what} for each of the {len(rows)} rows of {other}, got {len(values)}"
        )


def _class_ids(labels: Array) -> tuple[Array, tuple[str, ...] | None]:
    """Return labels that are names as integers and the names in their order, other labels as they are."""
    import numpy as np

    from dmlcore.metrics.arrays import check_labels

    checked = check_labels(labels)
    if checked.dtype.kind not in "SU":
        return labels, None
    names, ids = np.unique(checked.astype(np.str_), return_inverse=True)
    return ids, tuple(names.tolist())


def _read_names(path: Path) -> tuple[str, ...]:
    from dmlcore.core.text import differing_by_normalisation, text_lines

    names = tuple(text_lines(path.read_bytes(), str(path)))
    for twins in differing_by_normalisation(names).values():
        listed = ", ".join(map(ascii, twins))
        typer.echo(
            f"dmlcore: {path}: {listed} differ only by Unicode normalisation; are they one class?", err=True
        )
    return names


def trial_splits(key: str, study: Path, files_given: bool) -> CalibrationData:
    """Load the stored splits of a finished trial.

    Raises:
        ValueError: files are given too, no such trial, or an unfinished one.
    """
    if files_given:
        raise ValueError("--trial brings its own embeddings, labels and names; leave out the files")
    record, store = finished_trial(study, key)
    v, t = (store.load(split) for split in ("validation", "test"))
    validation, test = (
        Split(part["embeddings"], part["labels"], part.get("is_query"), part.get("groups")) for part in (v, t)
    )
    note = TWO_MODELS if record.config["train"].get("final") else None
    named = replace(test, names=split_class_names(study, record, "test"))
    inputs = {split: record.files[split] for split in ("validation", "test")}
    return CalibrationData(validation, named, inputs, record.trial_key, note)
