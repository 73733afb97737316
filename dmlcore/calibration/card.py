"""The card of a calibration: what a reader needs to use the threshold, as plain JSON values.

Shapes: C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from typing import Any

from dmlcore.calibration.intervals import LEVEL, drift
from dmlcore.calibration.promise import notes_of, promise_of
from dmlcore.calibration.run import Calibration
from dmlcore.calibration.splits import SplitRates
from dmlcore.calibration.summaries import KINDS, class_summary, group_summary, split_summary
from dmlcore.calibration.threshold import Target

SCHEMA_VERSION = 2
RULES = {
    "far": "the floor(f M)-th smallest of the M negative distances of validation, a smaller one where distances tie",
    "frr": "the ceil((1 - r) P)-th smallest of the P positive distances of validation",
    "precision": "accepts the most positive pairs of validation at that precision, where a share `prior` are matches",
    "cost": "the least cost a pair on validation: prior FRR cost_false_reject + (1 - prior) FAR cost_false_accept",
    "f1": "the best F1 over the pairs of validation as they are",
}
OVER = {
    "all": "all pairs",
    "worst_group": "each group, within and across: one threshold that keeps the target for the worst of them",
    "per_group": (
        "each group, within and across: a threshold a group (`group_thresholds`); a pair of two groups takes the one "
        "of the two that is stricter about the target; `threshold` is the strictest of all, for other groups"
    ),
}
INTERVAL = (
    f"{100 * LEVEL:g} % t-interval on the log-odds, its standard error robust to pairs that share a class (classes are "
    "the independent draws)"
)
LISTED_INTERVAL = (
    f"{100 * LEVEL:g} % t-interval on the log-odds, its standard error robust to pairs that share an image; of classes "
    "nothing is known: pairs of different images of one class are taken as independent, so it may be too narrow"
)
CLASS_INTERVAL = (
    f"{100 * LEVEL:g} % interval of one class: Hoeffding's bound for floor(n / 2) (FRR) or n (FAR) independent draws, "
    "n images of the class. `beyond_limit`: classes whose whole interval is above the limit"
)


def calibration_card(
    found: Calibration | Sequence[Calibration],
    *,
    class_names: Sequence[str] | None = None,
    limits: Mapping[str, float] | None = None,
    worst: int = 10,
    source: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write down everything about `found` in JSON values.

    Args:
        found: the result of `calibrate`, or of several targets: the first one's entries, the others' under `further`.
        class_names: [L], name of label 0..L-1 of test (where there is none, of validation); None: labels alone.
        limits: `far`, `frr` -> the largest rate that a class may have; classes that are surely beyond it are all
            listed, as are those whose rate is above it and whose images are too few to be sure.
        worst: how many of the worst classes to list.
        source: what is known of the data: `model`, `data_date`, `inputs` (file -> sha256).

    Raises:
        ValueError: a label of test without a name, a limit outside 0..1.
    """
    first, *others = [found] if isinstance(found, Calibration) else found
    _check(first.final, "test" if first.test else "validation", class_names, limits or {})
    entries = [_entry(one, class_names, limits or {}, worst) for one in (first, *others)]
    return {
        "schema_version": SCHEMA_VERSION,
        "dmlcore": _version(),
        **(source or {}),
        **entries[0],
        **({"further": entries[1:]} if others else {}),
    }


def _version() -> str:
    try:
        return metadata.version("dmlcore")
    except metadata.PackageNotFoundError:
        return "not installed"


def _entry(
    found: Calibration, names: Sequence[str] | None, limits: Mapping[str, float], worst: int
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "target": _target(found.target),
        "promise": promise_of(found),
        "threshold": {
            "distance": found.threshold.distance,
            "cosine_similarity": found.threshold.similarity,
            "rule": RULES[found.target.kind],
            "use": (
                "accept a pair of L2-normalised embeddings if their L2 distance is at most `distance`, which is a "
                "cosine similarity of at least `cosine_similarity`"
            ),
        },
        "interval": INTERVAL if found.final.labels.size else LISTED_INTERVAL,
    }
    content |= {
        name: split_summary(rates) | _reached(found.target, rates) for name, rates in found.splits.items()
    }
    if found.final.labels.size:
        content["class_interval"] = CLASS_INTERVAL
        content["test" if found.test else "validation"] |= {
            f"class_{kind}": class_summary(found.final, kind, names, limits.get(kind), worst)
            for kind in KINDS
        }
    if found.group_thresholds:
        content["group_thresholds"] = _group_thresholds(found)
    if found.test:
        content["drift"] = _drift(found.validation, found.test)
    return content | {"notes": notes_of(found)}


def _target(target: Target) -> dict[str, Any]:
    given = {name: value for name, value in asdict(target).items() if value is not None}
    return given | {"over": OVER[target.over]}


def _reached(target: Target, rates: SplitRates) -> dict[str, Any]:
    """Return the precision, cost or F1 of a split, for the targets that are none of its rates."""
    if target.kind in KINDS:
        return {}
    accepted = rates.frr.pairs - rates.frr.errors
    return {target.kind: target.reached(accepted, rates.far.errors, (rates.frr.pairs, rates.far.pairs))}


def _group_thresholds(found: Calibration) -> list[dict[str, Any]]:
    return [
        {
            "group": own.name,
            "distance": own.threshold.distance,
            "cosine_similarity": own.threshold.similarity,
            **{split: group_summary(rates) for split, rates in own.rates.items()},
        }
        for own in found.group_thresholds
    ]


def _drift(validation: SplitRates, test: SplitRates) -> dict[str, Any]:
    return {kind: asdict(drift(getattr(validation, kind), getattr(test, kind))) for kind in KINDS}


def _check(final: SplitRates, split: str, names: Sequence[str] | None, limits: Mapping[str, float]) -> None:
    if names is not None and not 0 <= int(final.labels[0]) <= int(final.labels[-1]) < len(names):
        raise ValueError(
            f"class names must name each {split} label ({final.labels[0]} to {final.labels[-1]}), got {len(names)} "
            "names; line k + 1 names label k"
        )
    for kind, limit in limits.items():
        if kind not in KINDS or not 0.0 <= limit <= 1.0:
            raise ValueError(f"--{kind}-limit must be a rate in [0, 1], got {limit}")
