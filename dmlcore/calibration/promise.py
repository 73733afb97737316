"""What a card promises for classes not seen, on what that rests, and what its reader must be told."""

from __future__ import annotations

from typing import Any

from dmlcore.calibration.groups import PARTS
from dmlcore.calibration.intervals import Rate, bound_of_any_law
from dmlcore.calibration.run import Calibration
from dmlcore.calibration.splits import SplitRates
from dmlcore.calibration.summaries import KINDS, surely_above

FEW_CLASSES = 200
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
LISTED_ASSUMPTIONS = (
    "the pairs of use are drawn as those of validation were: same source, same way of choosing pairs",
    "images are embedded by the same model and preprocessing",
    "pairs that share no image are independent: of classes behind the pairs nothing is known, and if few classes are "
    "behind many of them, the bound is too low",
)


def promise_of(found: Calibration) -> dict[str, Any] | None:
    """Return what is promised for classes not seen, and on what it rests; None without a confidence."""
    kind, confidence = found.target.kind, found.target.confidence
    if confidence is None:
        return None
    rates = _promised_rates(found)
    share = 1.0 - (1.0 - confidence) / len(rates)
    every = "" if found.target.over == "all" else " and for every group, within it and across, all at once"
    listed = found.validation.compared == "listed"
    unseen = "pairs" if listed else "classes"
    return {
        "statement": (
            f"{kind.upper()} of at most {found.target.limit:g} for {unseen} not seen{every}, with "
            f"{100 * confidence:g} % confidence: of 100 validation sets drawn like this one, about "
            f"{100 * confidence:.3g} give a threshold that keeps it"
        ),
        "confidence": confidence,
        "bound": max(rate.upper(share) for rate in rates),
        "bound_of_any_law": max(bound_of_any_law(rate, share) for rate in rates),
        "assumptions": list(LISTED_ASSUMPTIONS if listed else ASSUMPTIONS),
        "on_test": _on_test(getattr(found.test, kind), found.target.limit) if found.test else None,
    }


def _promised_rates(found: Calibration) -> list[Rate]:
    """Return the rates of validation that the promise is about: the pooled one, or those of all groups."""
    if found.target.over == "all":
        return [getattr(found.validation, found.target.kind)]
    groups = [own.rates["validation"] for own in found.group_thresholds] or found.validation.groups
    parts = [group.rates[part][found.target.kind] for group in groups for part in PARTS]
    return [rate for rate in parts if rate]


def _on_test(rate: Rate, target: float) -> str:
    if rate.low > target:
        return "broken: the whole interval of the rate on test is above the target"
    return (
        "kept"
        if rate.high <= target
        else "not contradicted: the interval of the rate on test holds the target"
    )


def notes_of(found: Calibration) -> list[str]:
    notes = [
        f"{name}: {len(rates.labels)} classes are few: the intervals may be too narrow"
        for name, rates in found.splits.items()
        if 0 < len(rates.labels) < FEW_CLASSES
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
    promise = promise_of(found)
    if promise is None:
        return []
    notes = []
    if 0 < len(found.validation.labels) < FEW_CLASSES:
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
    if found.validation.compared != test.compared:
        notes.append("the two splits compare other pairs (`compared`): part of the drift may come from that")
    return notes


def _group_notes(found: Calibration) -> list[str]:
    target = found.target
    notes = [
        f"{split}: {target.kind.upper()} surely above the target of {target.limit:g} for the groups "
        f"{', '.join(above[:10])}"
        for split, rates in found.splits.items()
        if target.kind in KINDS
        and not found.group_thresholds
        and (above := surely_above(rates.groups, target.kind, target.limit))
    ]
    known = {group.name for group in found.validation.groups}
    new = [f"{group.name}" for group in (found.test.groups if found.test else ()) if group.name not in known]
    if known and new:
        notes.append(f"test has groups that validation has not: {', '.join(new[:10])}")
    return notes
