"""The card of a calibration: what a reader needs to use the threshold, as plain JSON values.

Shapes: C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dmlcore.calibration.groups import PARTS
from dmlcore.calibration.intervals import LEVEL, Rate, bound_of_any_law, drift
from dmlcore.calibration.run import Calibration, SplitRates
from dmlcore.calibration.summaries import KINDS, class_summary, group_summary, split_summary, surely_above

FEW_CLASSES = 200
RULES = {
    "far": "the floor(f M)-th smallest of the M negative distances of validation, a smaller one where distances tie",
    "frr": "the ceil((1 - r) P)-th smallest of the P positive distances of validation",
}
OVER = {
    "all": "all pairs",
    "worst_group": "each group, within and across: one threshold that keeps the target for the worst of them",
    "per_group": (
        "each group, within and across: a threshold a group (`group_thresholds`); a pair of two groups takes the one "
        "of the two that is stricter about the target; `threshold` is the strictest of all, for other groups"
    ),
}
WITHOUT_TEST = (
    "no test set was given: the rates are those of the images that the threshold was set on, so the target holds by "
    "construction, and nothing is known of drift"
)
ASSUMPTIONS = (
    "the classes of use are drawn as those of validation were: same source, same kinds, as many images a class",
    "images are embedded by the same model and preprocessing",
    "few classes that are near to all others (hubs) are the hard case: `docs/validation.md` has how often the promise "
    "was kept, by number of classes; `bound_of_any_law` needs no law, only that classes are drawn independently",
)
INTERVAL = (
    f"{100 * LEVEL:g} % t-interval on the log-odds, its standard error robust to pairs that share a class (classes are "
    "the independent draws)"
)
CLASS_INTERVAL = (
    f"{100 * LEVEL:g} % interval of one class: Hoeffding's bound for floor(n / 2) (FRR) or n (FAR) independent draws, "
    "n images of the class. `beyond_limit`: classes whose whole interval is above the limit"
)


def calibration_card(
    found: Calibration,
    *,
    class_names: Sequence[str] | None = None,
    limits: Mapping[str, float] | None = None,
    worst: int = 10,
) -> dict[str, Any]:
    """Write down everything about `found` in JSON values.

    Args:
        found: the result of `calibrate`.
        class_names: [L], name of label 0..L-1 of test (where there is none, of validation); None: labels alone.
        limits: `far`, `frr` -> the largest rate that a class may have; classes that are surely beyond it are all
            listed, as are those whose rate is above it and whose images are too few to be sure.
        worst: how many of the worst classes to list.

    Raises:
        ValueError: a label of test without a name, a limit outside 0..1.
    """
    _check(found.final, "test" if found.test else "validation", class_names, limits or {})
    content: dict[str, Any] = {
        "schema_version": 2,
        "target": {"kind": found.target.kind, "rate": found.target.rate, "over": OVER[found.target.over]},
        "promise": _promise(found),
        "threshold": {
            "distance": found.threshold.distance,
            "cosine_similarity": found.threshold.similarity,
            "rule": RULES[found.target.kind],
            "use": "accept a pair of L2-normalised embeddings if their L2 distance is at most `distance`",
        },
        "interval": INTERVAL,
        "class_interval": CLASS_INTERVAL,
    }
    content |= {name: split_summary(rates) for name, rates in found.splits.items()}
    content["test" if found.test else "validation"] |= {
        f"class_{kind}": class_summary(found.final, kind, class_names, (limits or {}).get(kind), worst)
        for kind in KINDS
    }
    if found.group_thresholds:
        content["group_thresholds"] = _group_thresholds(found)
    if found.test:
        content["drift"] = _drift(found.validation, found.test)
    return content | {"notes": _notes(found)}


def _promise(found: Calibration) -> dict[str, Any] | None:
    """Return what is promised for classes not seen, and on what it rests; None without a confidence."""
    kind, confidence = found.target.kind, found.target.confidence
    if confidence is None:
        return None
    rates = _promised_rates(found)
    share = 1.0 - (1.0 - confidence) / len(rates)
    every = "" if found.target.over == "all" else " and for every group, within it and across, all at once"
    return {
        "statement": (
            f"{kind.upper()} of at most {found.target.rate:g} for classes not seen{every}, with {100 * confidence:g} % "
            "confidence: of 100 validation sets drawn like this one, so many give a threshold that keeps it"
        ),
        "confidence": confidence,
        "bound": max(rate.upper(share) for rate in rates),
        "bound_of_any_law": max(bound_of_any_law(rate, share) for rate in rates),
        "assumptions": list(ASSUMPTIONS),
        "on_test": _on_test(getattr(found.test, kind), found.target.rate) if found.test else None,
    }


def _promised_rates(found: Calibration) -> list[Rate]:
    """Return the rates of validation that the promise is about: the pooled one, or those of all groups."""
    if found.target.over == "all":
        return [getattr(found.validation, found.target.kind)]
    groups = [own.rates["validation"] for own in found.group_thresholds] or found.validation.groups
    parts = [group.rates[part][found.target.kind] for group in groups for part in PARTS]
    return [rate for rate in parts if rate]


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


def _group_notes(found: Calibration) -> list[str]:
    target = found.target
    notes = [
        f"{split}: {target.kind.upper()} surely above the target of {target.rate:g} for the groups "
        f"{', '.join(above[:10])}"
        for split, rates in found.splits.items()
        if not found.group_thresholds and (above := surely_above(rates.groups, target.kind, target.rate))
    ]
    known = {group.name for group in found.validation.groups}
    new = [f"{group.name}" for group in (found.test.groups if found.test else ()) if group.name not in known]
    if known and new:
        notes.append(f"test has groups that validation has not: {', '.join(new[:10])}")
    return notes


def _on_test(rate: Rate, target: float) -> str:
    if rate.low > target:
        return "broken: the whole interval of the rate on test is above the target"
    return (
        "kept"
        if rate.high <= target
        else "not contradicted: the interval of the rate on test holds the target"
    )


def _drift(validation: SplitRates, test: SplitRates) -> dict[str, Any]:
    return {kind: asdict(drift(getattr(validation, kind), getattr(test, kind))) for kind in KINDS}


def _notes(found: Calibration) -> list[str]:
    notes = [
        f"{name}: {len(rates.labels)} classes are few: the intervals may be too narrow"
        for name, rates in found.splits.items()
        if len(rates.labels) < FEW_CLASSES
    ]
    notes += [
        f"{name}: {rates.under_two_labels} images are identical to one of another label: remove one label of each"
        for name, rates in found.splits.items()
        if rates.under_two_labels
    ]
    notes += _promise_notes(found) + _group_notes(found)
    notes += [WITHOUT_TEST] if found.test is None else _test_notes(found, found.test)
    if found.target.kind == "far" and found.validation.far.errors == 0:
        notes.append(
            "the nearest negative pairs of validation tie, more of them than the target allows: the threshold is just "
            "below their distance and accepts none"
        )
    return notes


def _promise_notes(found: Calibration) -> list[str]:
    promise = _promise(found)
    if promise is None:
        return []
    notes = []
    if len(found.validation.labels) < FEW_CLASSES:
        notes.append(
            f"the promise rests on {len(found.validation.labels)} classes: where a few classes are near to all others, "
            "it was kept less often than it says in simulations (docs/validation.md)"
        )
    if (promise["on_test"] or "").startswith("broken"):
        notes.append("the promise is broken on test: its classes are not drawn as those of validation were")
    return notes


def _test_notes(found: Calibration, test: SplitRates) -> list[str]:
    notes = []
    if found.shared:
        notes.append(
            f"{found.shared} of the {int(test.images.sum())} images of test are in validation too: the rates on "
            "test are not those of images that the threshold has not seen"
        )
    if found.validation.query_gallery != test.query_gallery:
        notes.append("the two splits compare other pairs (`compared`): part of the drift may come from that")
    return notes


def _check(final: SplitRates, split: str, names: Sequence[str] | None, limits: Mapping[str, float]) -> None:
    if names is not None and not 0 <= int(final.labels[0]) <= int(final.labels[-1]) < len(names):
        raise ValueError(
            f"class names must name each {split} label ({final.labels[0]} to {final.labels[-1]}), got {len(names)} "
            "names; line k + 1 names label k"
        )
    for kind, limit in limits.items():
        if kind not in KINDS or not 0.0 <= limit <= 1.0:
            raise ValueError(f"--{kind}-limit must be a rate in [0, 1], got {limit}")
