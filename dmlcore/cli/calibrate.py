"""`dmlcore calibrate`: one threshold for a target rate, and the classes for which it is wrong most often."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmlcore.cli.arrays import EMBEDDINGS, LABELS, read_embeddings, read_labels
from dmlcore.cli.options import Study, check_plot, finished_trial, split_class_names
from dmlcore.core.io import write_atomically

if TYPE_CHECKING:
    from dmlcore.calibration import Calibration
    from dmlcore.metrics.inputs import Array

TWO_MODELS = (
    "the trial was trained again on validation classes too (`train.final`): validation was embedded by the model "
    "chosen on it, test by the final one, so part of the drift is between two models"
)


@dataclass(frozen=True)
class CalibrationData:
    """Embeddings and labels of both splits, and the names of the test labels if they are known."""

    validation: tuple[Array, Array]
    test: tuple[Array, Array]
    names: tuple[str, ...] | None
    is_query: tuple[Array | None, Array | None] = (None, None)
    trial_key: str | None = None
    note: str | None = None


FarTarget = Annotated[
    float | None, typer.Option(help="Target: share of the negative pairs accepted, 0 to 1.")
]
FrrTarget = Annotated[
    float | None, typer.Option(help="Target: share of the positive pairs rejected, 0 to 1.")
]
Validation = Annotated[Path | None, typer.Option(help=f"Validation embeddings, {EMBEDDINGS}")]
ValidationLabels = Annotated[Path | None, typer.Option(help=f"Validation labels, {LABELS}")]
Test = Annotated[Path | None, typer.Option(help=f"Test embeddings, {EMBEDDINGS}")]
TestLabels = Annotated[Path | None, typer.Option(help=f"Test labels, {LABELS}")]
ClassNames = Annotated[Path | None, typer.Option(help="Text file: line k + 1 is the name of test label k.")]
Trial = Annotated[
    str | None, typer.Option(help="Key of a finished trial of the study, instead of the four files.")
]
FarLimit = Annotated[float | None, typer.Option(help="List the test classes with a FAR above it.")]
FrrLimit = Annotated[float | None, typer.Option(help="List the test classes with an FRR above it.")]
Card = Annotated[Path, typer.Option(help="Write the card here as JSON.")]
Plot = Annotated[Path | None, typer.Option(help="Write the spread over the classes here as PNG.")]
Classes = Annotated[Path | None, typer.Option(help="Write one row per test class here as CSV.")]


def calibrate(
    far: FarTarget = None,
    frr: FrrTarget = None,
    validation: Validation = None,
    validation_labels: ValidationLabels = None,
    test: Test = None,
    test_labels: TestLabels = None,
    class_names: ClassNames = None,
    trial: Trial = None,
    study: Study = Path(),
    far_limit: FarLimit = None,
    frr_limit: FrrLimit = None,
    card: Card = Path("calibration.json"),
    plot: Plot = None,
    classes: Classes = None,
) -> None:
    """Set one distance threshold on validation embeddings for a target rate, and report its errors by class on test.

    The rates count the pairs of each image with every other of its split; for a trial whose data set has queries and
    a gallery, the pairs of a query and a gallery image. The card says which.

    Example: dmlcore calibrate --far 0.01 --validation v.npy --validation-labels vl.npy --test t.npy
    --test-labels tl.npy --frr-limit 0.2 --card card.json --plot card.png
    """
    from dmlcore.calibration import Target
    from dmlcore.calibration import calibrate as set_threshold
    from dmlcore.calibration.card import calibration_card

    check_plot(plot)
    target = Target(*_target(far, frr))
    files = (validation, validation_labels, test, test_labels)
    data = _from_trial(trial, study, files, class_names) if trial else _from_files(files, class_names)
    found = set_threshold(data.validation, data.test, target, is_query=data.is_query)
    limits = {k: v for k, v in (("far", far_limit), ("frr", frr_limit)) if v is not None}
    content = calibration_card(found, class_names=data.names, limits=limits)
    content["notes"] += [data.note] if data.note else []
    if data.trial_key:
        content = {"trial_key": data.trial_key, **content}
    write_atomically(card, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if plot is not None:
        from dmlcore.calibration.plot import calibration_png

        write_atomically(plot, calibration_png(found, limits))
    if classes is not None:
        write_atomically(classes, _class_csv(found, data.names))
    _print_card(content)
    typer.echo("written: " + ", ".join(str(path) for path in (card, plot, classes) if path))


def _target(far: float | None, frr: float | None) -> tuple[Any, float]:
    given = [(kind, rate) for kind, rate in (("far", far), ("frr", frr)) if rate is not None]
    if len(given) != 1:
        raise ValueError(f"give one target, --far or --frr, got {len(given)} of them")
    return given[0]


def _from_files(files: tuple[Path | None, ...], names: Path | None) -> CalibrationData:
    given = [path for path in files if path is not None]
    if len(given) < len(files):
        raise ValueError(
            "give --validation, --validation-labels, --test and --test-labels, or --trial; "
            f"got {len(given)} of the four"
        )
    v, t = read_embeddings(given[0]), read_embeddings(given[2])
    validation, (labels, found) = _class_ids(read_labels(given[1]))[0], _class_ids(read_labels(given[3]))
    if names and found:
        raise ValueError(f"{given[3]} has the names of the classes; leave out --class-names")
    lines = _read_names(names) if names else found
    return CalibrationData((v, validation), (t, labels), lines)


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


def _from_trial(key: str, study: Path, files: tuple[Path | None, ...], names: Path | None) -> CalibrationData:
    if names or any(files):
        raise ValueError("--trial brings its own embeddings, labels and names; leave out the files")
    record, store = finished_trial(study, key)
    v, t = (store.load(split) for split in ("validation", "test"))
    validation, test = ((part["embeddings"], part["labels"]) for part in (v, t))
    note = TWO_MODELS if record.config["train"].get("final") else None
    is_query = v.get("is_query"), t.get("is_query")
    return CalibrationData(
        validation, test, split_class_names(study, record, "test"), is_query, record.trial_key, note
    )


def _class_csv(found: Calibration, names: tuple[str, ...] | None) -> str:
    from dmlcore.calibration.card import class_rows
    from dmlcore.core.spreadsheet import rows_csv

    return rows_csv(class_rows(found.test, names))


def _print_card(card: dict[str, Any]) -> None:
    threshold = card["threshold"]
    typer.echo(
        f"threshold: distance {threshold['distance']:.6f}, cosine {threshold['cosine_similarity']:.6f}"
    )
    for split in ("validation", "test"):
        typer.echo(f"{split}: {card[split]['compared']}")
        for kind in ("far", "frr"):
            rate = card[split][kind]
            interval = f"95 % interval {rate['low']:.6f} to {rate['high']:.6f}"
            typer.echo(f"{split:10} {kind.upper()} {rate['rate']:.6f}  {interval}  ({rate['pairs']} pairs)")
    for kind in ("far", "frr"):
        _print_classes(kind, card["test"][f"class_{kind}"])
    for note in card["notes"]:
        typer.echo(f"note: {note}")


def _print_classes(kind: str, found: dict[str, Any]) -> None:
    median, high, worst = (found["quantiles"][level] for level in ("0.5", "0.95", "1"))
    typer.echo(
        f"test classes {kind.upper()}: median {median:.6f}, 95 % of them up to {high:.6f}, worst {worst:.6f}"
    )
    if "limit" in found:
        beyond, unsure = found["beyond_limit"], len(found["too_few_images_to_say"])
        named = ", ".join(str(row["name"] or row["label"]) for row in beyond[:5])
        line = f"  beyond {found['limit']:g}: {len(beyond)} of {found['classes']}"
        typer.echo(line + (f": {named}" if named else ""))
        typer.echo(f"  above it, too few images to say: {unsure}")
