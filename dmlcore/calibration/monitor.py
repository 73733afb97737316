"""Is a card's threshold still good on new data? Without labels by a test of shift, with labels by the rates."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from dmlcore.calibration.intervals import Rate
from dmlcore.calibration.reference import (
    BLOCKS,
    QUANTILES,
    SUMS,
    image_blocks,
    jackknife_variance,
    observed,
)
from dmlcore.calibration.splits import measure_rates
from dmlcore.metrics.inputs import Array, build_pairs

MOST_BYTES = 1 << 26
SIZE_SLACK = 1.02
STATISTICS = {
    "accepted": "accepted pairs an image (logarithm)",
    "similarity": "mean similarity of accepted pairs",
    "nearest": "mean similarity of the nearest neighbour",
}


def read_card(path: Path) -> dict[str, Any]:
    """Read a card and check what `monitor` uses of it: a card may come from anybody.

    Raises:
        ValueError: it is no card of this schema version, or a number in it is missing or impossible.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(
            f"{path} must be a card of `dmlcore calibrate`, it has {path.stat().st_size:,} bytes"
        )
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} must be a card of `dmlcore calibrate`: {error!s:.120}; write it again"
        ) from None
    version = card.get("schema_version") if isinstance(card, dict) else None
    if version != 2:
        raise ValueError(f"{path} must be a card of schema_version 2, got {version!r:.40}; calibrate again")
    _check(path, card)
    checked: dict[str, Any] = card
    return checked


def _check(path: Path, card: dict[str, Any]) -> None:
    try:
        similarity, kind = card["threshold"]["cosine_similarity"], card["target"]["kind"]
        rate = card["target"].get("rate", 0.5)
        sound = _number(similarity, -1.0, 1.0) and isinstance(kind, str) and _number(rate, 0.0, 1.0)
        reference = card.get("reference")
        sound = sound and (reference is None or _sound(reference))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: the card lacks {error!s:.60}; calibrate again") from None
    if not sound:
        raise ValueError(f"{path}: a number of the card is missing or impossible; calibrate again")


def _sound(reference: dict[str, Any]) -> bool:
    sums = [reference["full"], *reference["without"]]
    lists = [*reference["nearest_by_size"], *reference["nearest_quantiles"]]
    return (
        2 <= len(reference["without"]) <= BLOCKS
        and len(reference["nearest_by_size"]) == len(reference["without"])
        and len(reference["nearest_quantiles"]) == len(QUANTILES)
        and all(_number(one[name], -1e15, 1e15) for one in sums for name in SUMS)
        and all(one["images"] >= 2 and one["strangers"] >= 1 and one["mates"] >= 1 for one in sums)
        and all(_number(value, -1.0, 1.0) for value in lists)
        and all(_number(reference["design_effect"][name], 1.0, 1e9) for name in STATISTICS)
    )


def _number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def monitor_unlabelled(card: dict[str, Any], embeddings: Array, *, level: float = 0.05) -> dict[str, Any]:
    """Test whether new embeddings look as validation did at the card's threshold.

    Each statistic is compared with what validation predicts for so many images; its variance has a part of validation
    (blocks of whole classes) and one of the new set (blocks of images, times the design effect of classes). Student's t
    with K - 1 degrees of freedom, Holm's correction over the statistics.

    Args:
        card: of `read_card`.
        embeddings: [N', D], drawn as validation was: as many images a class.
        level: probability of an alarm where nothing has changed.

    Raises:
        ValueError: the card has no reference, too few images, a level outside (0, 0.5).
    """
    if not 0.0 < level < 0.5:
        raise ValueError(f"--level must be in (0, 0.5), as 0.05, got {level}")
    reference = card.get("reference")
    if reference is None:
        raise ValueError(
            "the card has no reference of unlabelled data (validation had queries and a gallery, listed pairs or fewer "
            f"than {BLOCKS} classes); give --labels"
        )
    if len(embeddings) < 2 * BLOCKS:
        raise ValueError(
            f"there must be at least {2 * BLOCKS} new images, got {len(embeddings)}; collect more"
        )
    with torch.inference_mode():
        sums = image_blocks(embeddings, card["threshold"]["cosine_similarity"])
    new, parts = observed(sums.without(None)), [sums.without(block) for block in range(BLOCKS)]
    full, images = reference["full"], len(embeddings)
    tests = {}
    for name in STATISTICS:
        predicted = _predicted(full, name, images, reference)
        if predicted is None:
            continue
        without = [_predicted(part, name, images, reference) or 0.0 for part in reference["without"]]
        spread = (
            jackknife_variance([observed(part)[name] for part in parts]) * reference["design_effect"][name]
        )
        error = math.sqrt(max(jackknife_variance(without) + spread, 1e-18))
        t = (new[name] - predicted) / error
        tests[name] = {
            "what": STATISTICS[name],
            "validation": predicted,
            "new": new[name],
            "standard_error": error,
            "p_value": float(2.0 * stats.t.sf(abs(t), len(without) - 1)),
        }
    shifted = _holm(tests, level)
    notes = (
        []
        if "nearest" in tests
        else [
            "nearest neighbours were not compared: the new set is larger than the reference, or far smaller; nearest "
            "neighbours are nearer in a larger set"
        ]
    )
    return {
        "ok": not shifted,
        "level": level,
        "shifted": shifted,
        "images": images,
        "tests": tests,
        "nearest_quantiles": np.quantile(sums.best.max(axis=1), QUANTILES).tolist(),
        "assumption": "the new images are drawn as those of validation were: same source, as many images a class",
        "notes": notes,
    }


def _holm(tests: dict[str, Any], level: float) -> list[str]:
    found = []
    for place, (name, test) in enumerate(sorted(tests.items(), key=lambda item: item[1]["p_value"])):
        if test["p_value"] > level / (len(tests) - place):
            break
        found.append(name)
    return found


def _predicted(sums: dict[str, float], name: str, images: int, reference: dict[str, Any]) -> float | None:
    """Return what a set of `images` of the same law and as many images a class would show; None: of no such size."""
    mates = sums["mates"] / sums["images"]
    if name == "nearest":
        sizes = np.arange(1, len(reference["nearest_by_size"]) + 1) / len(reference["nearest_by_size"])
        full = reference["full"]
        share = (images - 1 - mates) / (full["strangers"] / full["images"])
        if not sizes[0] <= share <= SIZE_SLACK:
            return None
        at_size = float(np.interp(np.log(share), np.log(sizes), reference["nearest_by_size"]))
        return at_size + float(sums["nearest"] - full["nearest"])
    others = (images - 1 - mates) * images / sums["strangers"]
    own = images / sums["images"]
    accepted = own * sums["own_accepted"] + others * sums["other_accepted"]
    total = own * sums["own_sum"] + others * sums["other_sum"]
    if name == "accepted":
        return float(np.log((max(accepted, 0.0) + 1.0) / images))
    return float(total / accepted) if accepted > 0 else None


def monitor_labelled(card: dict[str, Any], embeddings: Array, labels: Array) -> dict[str, Any]:
    """Measure FAR and FRR of the card's threshold on new labelled data.

    Not ok: the whole 95 % interval of the target's rate is above the target; for a target that is no rate, that of FAR
    or FRR is above the card's rate on validation.

    Raises:
        ValueError: see `dmlcore.metrics.evaluate`.
    """
    with torch.inference_mode():
        pairs = build_pairs(embeddings, labels, None, torch.device("cpu"))
        found = measure_rates(pairs, card["threshold"]["cosine_similarity"])
    target, kinds = card["target"], ("far", "frr")
    limits = (
        {target["kind"]: float(target["rate"])}
        if target["kind"] in kinds
        else {kind: float(card["validation"][kind]["rate"]) for kind in kinds}
    )
    rates: dict[str, Rate] = {kind: getattr(found, kind) for kind in kinds}
    broken = [kind for kind, limit in limits.items() if rates[kind].low > limit]
    return {
        "ok": not broken,
        "broken": broken,
        "limits": limits,
        "promised": (card.get("promise") or {}).get("statement"),
        "images": int(found.images.sum()),
        "classes": len(found.labels),
        **{
            kind: {"rate": r.value, "low": r.low, "high": r.high, "errors": r.errors, "pairs": r.pairs}
            for kind, r in rates.items()
        },
        "notes": [],
    }
