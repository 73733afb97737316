"""`dmlcore calibrate`: one threshold for a target rate, and the classes for which it is wrong most often."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dmlcore.cli import calibration_input as source
from dmlcore.cli import calibration_options as given
from dmlcore.cli.calibration_input import CalibrationData
from dmlcore.cli.calibration_output import class_csv, print_card
from dmlcore.cli.options import Memory, Study, check_plot, parse_memory
from dmlcore.cli.split_files import Split, SplitFiles
from dmlcore.core.io import write_atomically

if TYPE_CHECKING:
    from dmlcore.calibration import Calibration, Target


def calibrate(
    far: given.FarTargets = None,
    frr: given.FrrTargets = None,
    precision: given.Precisions = None,
    cost_false_accept: given.CostFalseAccept = None,
    cost_false_reject: given.CostFalseReject = None,
    best_f1: given.BestF1 = False,
    prior: given.Prior = None,
    confidence: given.Confidence = None,
    worst_group: given.WorstGroup = False,
    per_group: given.PerGroup = False,
    validation: given.Validation = None,
    validation_labels: given.ValidationLabels = None,
    validation_is_query: given.ValidationIsQuery = None,
    validation_gallery: given.ValidationGallery = None,
    validation_gallery_labels: given.ValidationGalleryLabels = None,
    validation_groups: given.ValidationGroups = None,
    validation_gallery_groups: given.ValidationGalleryGroups = None,
    test: given.Test = None,
    test_labels: given.TestLabels = None,
    test_is_query: given.TestIsQuery = None,
    test_gallery: given.TestGallery = None,
    test_gallery_labels: given.TestGalleryLabels = None,
    test_groups: given.TestGroups = None,
    test_gallery_groups: given.TestGalleryGroups = None,
    validation_pairs: given.ValidationPairs = None,
    test_pairs: given.TestPairs = None,
    ignore_label: given.IgnoreLabel = None,
    class_names: given.ClassNames = None,
    trial: given.Trial = None,
    study: Study = Path(),
    far_limit: given.FarLimit = None,
    frr_limit: given.FrrLimit = None,
    model: given.ModelId = None,
    data_date: given.DataDate = None,
    card: given.Card = Path("calibration.json"),
    plot: given.Plot = None,
    classes: given.Classes = None,
    device: given.Device = None,
    memory: Memory = "1GiB",
) -> None:
    """Set one distance threshold on validation embeddings for a target rate, and report its errors by class on test.

    The rates count the pairs of each image with every other of its split; with queries and a gallery, the pairs of a
    query and a gallery image. The card says which. Without test files the card has validation alone.

    Example: dmlcore calibrate --far 0.01 --validation v.npy --validation-labels vl.npy --test t.npy
    --test-labels tl.npy --frr-limit 0.2 --card card.json --plot card.png
    """
    from dmlcore.calibration import calibration_card

    check_plot(plot)
    costs = cost_false_accept, cost_false_reject
    promise = confidence, _over(worst_group, per_group)
    targets = _targets({"far": far, "frr": frr, "precision": precision}, prior, costs, best_f1, promise)
    splits = (
        SplitFiles(
            *("--validation", "--validation-", validation, validation_labels, validation_is_query),
            *(validation_gallery, validation_gallery_labels, validation_groups, validation_gallery_groups),
            validation_pairs,
        ),
        SplitFiles(
            *("--test", "--test-", test, test_labels, test_is_query),
            *(test_gallery, test_gallery_labels, test_groups, test_gallery_groups, test_pairs),
        ),
    )
    memory_bytes = parse_memory(memory)
    limits = {k: v for k, v in (("far", far_limit), ("frr", frr_limit)) if v is not None}
    data = _read(splits, class_names, ignore_label, trial, study)
    found = _calibrate(data, targets, device, memory_bytes, curves=plot is not None)
    known = {"model": model, "data_date": data_date, "trial_key": data.trial_key, "inputs": data.inputs}
    content = calibration_card(
        found,
        class_names=data.names,
        limits=limits,
        source={name: value for name, value in known.items() if value},
    )
    content["notes"] += [data.note] if data.note else []
    write_atomically(card, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    if plot is not None:
        from dmlcore.calibration.plot import calibration_png

        write_atomically(plot, calibration_png(found[0], limits))
    if classes is not None:
        write_atomically(classes, class_csv(found[0], data.names))
    print_card(content)
    typer.echo("written: " + ", ".join(str(path) for path in (card, plot, classes) if path))


def _calibrate(
    data: CalibrationData, targets: list[Target], device: str | None, memory: int, *, curves: bool
) -> list[Calibration]:
    from dmlcore.calibration import calibrate_pairs, calibrate_targets

    v, t = data.validation, data.test
    if not isinstance(v, Split):
        return calibrate_pairs(v, None if isinstance(t, Split) else t, targets, curves=curves)
    t = t if isinstance(t, Split) else None
    return calibrate_targets(
        (v.embeddings, v.labels),
        (t.embeddings, t.labels) if t else None,
        targets,
        is_query=(v.is_query, t.is_query if t else None),
        groups=(v.groups, t.groups if t else None),
        device=device,
        memory_bytes=memory,
        curves=curves,
        references=True,
    )


def _targets(
    rates: dict[Any, list[float] | None],
    prior: float | None,
    costs: tuple[float | None, float | None],
    best_f1: bool,
    promise: tuple[float | None, Any],
) -> list[Target]:
    """Build all targets that were asked for; those of FAR and FRR come first and take the promise."""
    from dmlcore.calibration import Target

    found = [
        Target(kind, rate, prior=prior) if kind == "precision" else Target(kind, rate, *promise)
        for kind, given_rates in rates.items()
        for rate in given_rates or []
    ]
    if costs != (None, None):
        found.append(Target("cost", prior=prior, cost_false_accept=costs[0], cost_false_reject=costs[1]))
    found += [Target("f1")] if best_f1 else []
    if not found:
        raise ValueError(
            "give at least one target: --far, --frr, --precision, --cost-false-accept with --cost-false-reject, or "
            "--best-f1"
        )
    if promise != (None, "all") and not (rates["far"] or rates["frr"]):
        raise ValueError(
            "--confidence, --worst-group and --per-group go with --far or --frr; give one of them"
        )
    return found


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
        return source.read_splits(*splits, names, ignore_label)
    return source.trial_splits(
        trial, study, bool(names or ignore_label or any(split.files for split in splits))
    )
