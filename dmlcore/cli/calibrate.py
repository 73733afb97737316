"""`dmlcore calibrate`: one threshold for a target rate, and the classes for which it is wrong most often."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmlcore.cli import calibration_input as given
from dmlcore.cli.calibration_input import CalibrationData, SplitFiles
from dmlcore.cli.options import Study, check_plot
from dmlcore.core.io import write_atomically

if TYPE_CHECKING:
    from dmlcore.calibration import Calibration

FarTarget = Annotated[
    float | None, typer.Option(help="Target: share of the negative pairs accepted, 0 to 1.")
]
FrrTarget = Annotated[
    float | None, typer.Option(help="Target: share of the positive pairs rejected, 0 to 1.")
]
Confidence = Annotated[
    float | None,
    typer.Option(help="Promise the target for classes not seen, with this confidence, such as 0.95."),
]
WorstGroup = Annotated[bool, typer.Option(help="Keep the target for the worst group, by one threshold.")]
PerGroup = Annotated[bool, typer.Option(help="Keep the target for each group, by a threshold a group.")]
FarLimit = Annotated[float | None, typer.Option(help="List the test classes with a FAR above it.")]
FrrLimit = Annotated[float | None, typer.Option(help="List the test classes with an FRR above it.")]
Card = Annotated[Path, typer.Option(help="Write the card here as JSON.")]
Plot = Annotated[Path | None, typer.Option(help="Write the spread over the classes here as PNG.")]
Classes = Annotated[Path | None, typer.Option(help="Write one row per test class here as CSV.")]


def calibrate(
    far: FarTarget = None,
    frr: FrrTarget = None,
    confidence: Confidence = None,
    worst_group: WorstGroup = False,
    per_group: PerGroup = False,
    validation: given.Validation = None,
    validation_labels: given.ValidationLabels = None,
    validation_is_query: given.ValidationIsQuery = None,
    validation_gallery: given.ValidationGallery = None,
    validation_gallery_labels: given.ValidationGalleryLabels = None,
    validation_groups: given.ValidationGroups = None,
    test: given.Test = None,
    test_labels: given.TestLabels = None,
    test_is_query: given.TestIsQuery = None,
    test_gallery: given.TestGallery = None,
    test_gallery_labels: given.TestGalleryLabels = None,
    test_groups: given.TestGroups = None,
    ignore_label: given.IgnoreLabel = None,
    class_names: given.ClassNames = None,
    trial: given.Trial = None,
    study: Study = Path(),
    far_limit: FarLimit = None,
    frr_limit: FrrLimit = None,
    card: Card = Path("calibration.json"),
    plot: Plot = None,
    classes: Classes = None,
    device: given.Device = None,
    memory_bytes: given.MemoryBytes = 2**30,
) -> None:
    """Set one distance threshold on validation embeddings for a target rate, and report its errors by class on test.

    The rates count the pairs of each image with every other of its split; with queries and a gallery, the pairs of a
    query and a gallery image. The card says which. Without test files the card has validation alone.

    Example: dmlcore calibrate --far 0.01 --validation v.npy --validation-labels vl.npy --test t.npy
    --test-labels tl.npy --frr-limit 0.2 --card card.json --plot card.png
    """
    from dmlcore.calibration import Target
    from dmlcore.calibration import calibrate as set_threshold
    from dmlcore.calibration.card import calibration_card

    check_plot(plot)
    target = Target(*_target(far, frr), confidence, _over(worst_group, per_group))
    splits = (
        SplitFiles(
            *("validation", validation, validation_labels, validation_is_query),
            *(validation_gallery, validation_gallery_labels, validation_groups),
        ),
        SplitFiles("test", test, test_labels, test_is_query, test_gallery, test_gallery_labels, test_groups),
    )
    data = _read(splits, class_names, ignore_label, trial, study)
    found = set_threshold(
        (data.validation.embeddings, data.validation.labels),
        (data.test.embeddings, data.test.labels) if data.test else None,
        target,
        is_query=(data.validation.is_query, data.test.is_query if data.test else None),
        groups=(data.validation.groups, data.test.groups if data.test else None),
        device=device,
        memory_bytes=memory_bytes,
    )
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


def _over(worst_group: bool, per_group: bool) -> Any:
    if worst_group and per_group:
        raise ValueError("give --worst-group or --per-group, not both")
    return "worst_group" if worst_group else "per_group" if per_group else "all"


def _read(
    splits: tuple[SplitFiles, SplitFiles],
    names: Path | None,
    ignore_label: str | None,
    trial: str | None,
    study: Path,
) -> CalibrationData:
    if trial is None:
        return given.read_splits(*splits, names, ignore_label)
    return given.trial_splits(
        trial, study, bool(names or ignore_label or any(split.given for split in splits))
    )


def _target(far: float | None, frr: float | None) -> tuple[Any, float]:
    given = [(kind, rate) for kind, rate in (("far", far), ("frr", frr)) if rate is not None]
    if len(given) != 1:
        raise ValueError(f"give one target, --far or --frr, got {len(given)} of them")
    return given[0]


def _class_csv(found: Calibration, names: tuple[str, ...] | None) -> str:
    from dmlcore.calibration import class_rows
    from dmlcore.core.spreadsheet import rows_csv

    return rows_csv(class_rows(found.final, names))


def _print_card(card: dict[str, Any]) -> None:
    threshold = card["threshold"]
    typer.echo(
        f"threshold: distance {threshold['distance']:.6f}, cosine {threshold['cosine_similarity']:.6f}"
    )
    if card["promise"]:
        typer.echo(f"promise: {card['promise']['statement']}")
    splits = [split for split in ("validation", "test") if split in card]
    for split in splits:
        typer.echo(f"{split}: {card[split]['compared']}")
        for kind in ("far", "frr"):
            rate = card[split][kind]
            interval = f"95 % interval {rate['low']:.6f} to {rate['high']:.6f}"
            typer.echo(f"{split:10} {kind.upper()} {rate['rate']:.6f}  {interval}  ({rate['pairs']} pairs)")
    for own in card.get("group_thresholds", []):
        typer.echo(f"threshold of group {own['group']}: distance {own['distance']:.6f}")
    for group in card[splits[-1]].get("groups", []):
        _print_group(splits[-1], group)
    for kind in ("far", "frr"):
        _print_classes(kind, splits[-1], card[splits[-1]][f"class_{kind}"])
    for note in card["notes"]:
        typer.echo(f"note: {note}")


def _print_group(split: str, group: dict[str, Any]) -> None:
    rates = [
        f"{kind.upper()} {part} {group[part][kind]['rate']:.6f}"
        for kind in ("far", "frr")
        for part in ("within", "across")
        if group[part][kind]
    ]
    typer.echo(f"{split} group {group['group']}: {', '.join(rates)}")


def _print_classes(kind: str, split: str, found: dict[str, Any]) -> None:
    median, high, worst = (found["quantiles"][level] for level in ("0.5", "0.95", "1"))
    typer.echo(
        f"{split} classes {kind.upper()}: median {median:.6f}, 95 % of them up to {high:.6f}, worst {worst:.6f}"
    )
    if "limit" in found:
        beyond, unsure = found["beyond_limit"], len(found["too_few_images_to_say"])
        named = ", ".join(str(row["name"] or row["label"]) for row in beyond[:5])
        line = f"  beyond {found['limit']:g}: {len(beyond)} of {found['classes']}"
        typer.echo(line + (f": {named}" if named else ""))
        typer.echo(f"  above it, too few images to say: {unsure}")
