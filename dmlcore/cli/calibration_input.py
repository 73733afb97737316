"""The splits of `dmlcore calibrate`, from files or from a trial, and the names of their classes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dmlcore.cli.arrays import read_embeddings, read_labels
from dmlcore.cli.options import finished_trial, split_class_names
from dmlcore.cli.split_files import Split, SplitFiles, read_split
from dmlcore.core.hashing import file_sha256

if TYPE_CHECKING:
    from dmlcore.metrics.inputs import Array

    Listed = tuple[Array, Array, Array]

TWO_MODELS = (
    "the trial was trained again on validation classes too (`train.final`): validation was embedded by the model "
    "chosen on it, test by the final one, so part of the drift is between two models"
)


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
    if not validation.files:
        raise ValueError("give --validation and --validation-labels, --validation-pairs, or --trial")
    held_out = _read_either(validation, ignore_label)
    final = _read_either(test, ignore_label) if test.files else None
    if final and isinstance(final, Split) != isinstance(held_out, Split):
        raise ValueError("give both splits as listed pairs, or both as images with labels")
    inputs = {str(path): file_sha256(path) for path in (*validation.files, *test.files)}
    if names is None:
        return CalibrationData(held_out, final, inputs)
    listed = final or held_out
    if not isinstance(listed, Split) or listed.names:
        files = test if final else validation
        raise ValueError(
            f"{files.labels or files.option('pairs')} has names of its own or no classes; leave out --class-names"
        )
    named = replace(listed, names=_read_names(names))
    return CalibrationData(held_out, named, inputs) if final else CalibrationData(named, None, inputs)


def _read_either(files: SplitFiles, ignore_label: str | None) -> Split | Listed:
    if files.pairs is None:
        return _prepared(read_split(files, ignore_label))
    if len(files.files) > len(files.pairs) or ignore_label is not None:
        raise ValueError(
            f"{files.option('pairs')} has all of the split; leave out its other files and --ignore-label"
        )
    first, second, same = files.pairs
    return read_embeddings(first), read_embeddings(second), read_labels(same)


def _prepared(split: Split) -> Split:
    """Leave out the ignored label, and number labels that are names in their order."""
    import numpy as np
    import torch

    from dmlcore.metrics.arrays import kept_images

    x, labels, is_query, groups = split.embeddings, np.asarray(split.labels), split.is_query, split.groups
    if split.ignore_label is not None:
        keep = kept_images(labels, split.ignore_label)
        x, labels = torch.as_tensor(x)[torch.from_numpy(keep)], labels[keep]
        is_query, groups = (None if part is None else part[keep] for part in (is_query, groups))
    if labels.dtype.kind not in "SU":
        return Split(x, labels, is_query, groups)
    names, ids = np.unique(labels.astype(np.str_), return_inverse=True)
    return Split(x, ids, is_query, groups, names=tuple(names.tolist()))


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
