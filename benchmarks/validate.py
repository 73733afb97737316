"""`make validate`: the statistics of the reports on simulated data whose truth is known; writes docs/validation.md.

python -m benchmarks.validate [--out docs/validation.md]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from dmlcore.analysis.paired_tests import holm, overall_test, paired_tests
from dmlcore.analysis.statistics import Estimate, paired_difference, t_interval
from dmlcore.calibration import Rate, Target, find_threshold, measure_rates
from dmlcore.core.io import write_atomically
from dmlcore.metrics.consistency import bootstrap_opis, bootstrap_weights, opis, percentile_interval
from dmlcore.metrics.inputs import build_pairs
from tests.analysis.trajectory_laws import simulate_pairs
from tests.calibration.laws import (
    draw,
    draw_sphere,
    share_within,
    sphere_distances,
    true_far,
    true_frr,
    true_sphere_far,
)

LOW, HIGH = 0.93, 0.97
ENOUGH_CLASSES = 200
HEAD = """# Validation of the statistics

Written by `make validate`: each interval and test on simulated data whose truth is known. "Covered": share of the
simulations whose 95 % interval held the truth, itself uncertain by about 0.5 points (0.7 and,
with hubs, 1 for `calibrate`).
`must`: the rule that the run checks, 93 to 97 % covered (a test at level 0.05: 3 to 7 % rejected where nothing is to be
found; a promise: kept in 95 %, less two standard errors of 100 draws, 4.4 points); a dash: measured and printed only.
`width`: of the interval, in 3.92 standard deviations of the rate.
"""
Row = tuple[str, str, float, bool]
"""What, at which size, measured share, whether 93 to 97 % is a rule for it."""


def seeds_of(law: str, rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draws of mean 0 and standard deviation 1."""
    return rng.standard_normal(size) if law == "normal" else rng.exponential(1.0, size) - 1.0


def over_seeds(simulations: int) -> Iterator[Row]:
    """t-intervals, paired intervals and paired tests; `exponential` shows what a skewed law costs."""
    for law in ("normal", "exponential"):
        for n in (3, 5, 10):
            yield from _over_seeds(law, n, simulations)


def _over_seeds(law: str, n: int, simulations: int) -> Iterator[Row]:
    rng = np.random.default_rng(n)
    values = 2.0 + seeds_of(law, rng, (simulations, n))
    baseline = rng.standard_normal((simulations, n)) * 3.0
    noise = seeds_of(law, rng, (simulations, n))
    rule, size = law == "normal", f"{n} seeds, {law}"
    covered = share(values, lambda row: held(t_interval(list(row), 0.95), 2.0))
    yield "t-interval over seeds", size, covered, rule
    pairs = zip(baseline, baseline + 0.5 + noise, strict=True)
    intervals = [paired_difference(dict(enumerate(a)), dict(enumerate(b)), 0.95) for a, b in pairs]
    covered = float(np.mean([held(found.difference, 0.5) for found in intervals]))
    yield "interval of the paired difference", size, covered, rule
    kept = share(noise, lambda row: (paired_tests([list(row)])[0].p_value or 0.0) >= 0.05)
    yield "paired t-test, no difference: not rejected", size, kept, rule


def over_comparisons(simulations: int) -> Iterator[Row]:
    """Holm's family-wise error and the signed-rank test, where nothing is to be found."""
    rng = np.random.default_rng(0)
    for m in (4, 16):
        kept = share(rng.random((simulations, m)), lambda row: min(p or 0.0 for p in holm(list(row))) >= 0.05)
        yield "Holm, no difference in any: none rejected", f"{m} comparisons", kept, True
    for m in (6, 8, 16):
        draws = rng.standard_normal((simulations, m))
        size = f"{m} comparisons" + ("" if m > 8 else " (few outcomes: never over 5 %)")
        kept = share(draws, lambda row: (overall_test(list(row)).p_value or 0.0) >= 0.05)
        yield "signed-rank test, no difference: not rejected", size, kept, m > 8


def over_trajectories(simulations: int) -> Iterator[Row]:
    """OPIS at equal accuracy: a variant that only learns faster, and one that lowers OPIS by 20 % too."""
    for seeds in (3, 5):
        for speed, top in ((1.0, 0.4), (2.0, 0.4), (2.0, 0.44), (0.5, 0.4)):
            size = f"{seeds} seeds, {speed:g} times as fast, tends to MAP@R {top:g} for 0.4"
            law = {"speed": speed, "top": top}
            kept = [low <= 0.0 <= high for low, high in _matched(seeds, simulations, **law)]
            yield "equal accuracy, faster alone: interval holds 0", size, float(np.mean(kept)), True
            found = [high < 0.0 for _, high in _matched(seeds, simulations, effect=-0.2, **law)]
            yield "equal accuracy, OPIS 20 % lower: found", size, float(np.mean(found)), False


def _matched(seeds: int, simulations: int, **law: float) -> Iterator[tuple[float, float]]:
    for number in range(simulations):
        pairs = simulate_pairs(np.random.default_rng((seeds, number)), seeds, **law)
        found = paired_difference(*pairs, 0.95).difference
        yield (found.low or 0.0), (found.high or 0.0)


def over_classes(simulations: int) -> Iterator[Row]:
    """The percentile bootstrap over classes of OPIS: rows of utility of known variance 0.01 over the classes."""
    for classes in (10, 27, 50, 100, 200, 400):
        rng = np.random.default_rng(classes)
        hits = 0
        for _ in range(simulations):
            utility = 0.7 + 0.1 * rng.standard_normal((classes, 1)) * np.linspace(0.9, 1.1, 11)
            low, high = percentile_interval(bootstrap_opis(utility, bootstrap_weights(classes, 500, rng)))
            hits += low <= TRUE_OPIS <= high
        yield "class bootstrap of OPIS", f"{classes} classes", hits / simulations, classes >= ENOUGH_CLASSES


TRUE_OPIS = opis(np.array([[-0.1], [0.1]]) * np.linspace(0.9, 1.1, 11))


def over_pairs(simulations: int) -> Iterator[Row]:
    """Pooled FAR and FRR at a fixed threshold; for comparison Wilson's interval, which takes pairs as independent."""
    distance = 0.2
    truth = {"far": true_far(distance), "frr": true_frr(distance)}
    for classes in (10, 27, 50, 100, 200, 400):
        hits = dict.fromkeys((f"{name}{kind}" for kind in truth for name in ("", "wilson ")), 0)
        for number in range(simulations):
            x, y = draw(classes, 6, np.random.default_rng((classes, number)))
            found = measure_rates(build_pairs(x, y, None, torch.device("cpu")), 1.0 - distance**2 / 2.0)
            for kind, rate in truth.items():
                pooled: Rate = getattr(found, kind)
                hits[kind] += pooled.low <= rate <= pooled.high
                wilson = stats.binomtest(pooled.errors, pooled.pairs).proportion_ci(method="wilson")
                hits[f"wilson {kind}"] += wilson.low <= rate <= wilson.high
        size, rule = f"{classes} classes of 6 images", classes >= ENOUGH_CLASSES
        for kind in truth:
            yield f"calibrate: interval of the pooled {kind.upper()}", size, hits[kind] / simulations, rule
            yield (
                f"Wilson's interval of the same {kind.upper()}",
                size,
                hits[f"wilson {kind}"] / simulations,
                False,
            )


def over_hubs(simulations: int) -> Iterator[Row]:
    """Pooled FAR where chance makes two classes neighbours, and where 5 % of the classes are near to all others."""
    for hubs in (0.0, 0.05):
        truth = true_sphere_far(HUB_DISTANCE, hubs)
        law = f"{100 * hubs:.0f} % hubs" if hubs else "no hubs"
        for classes in (27, 50, 100, 200, 400):
            found = [_of_hubs(classes, hubs, number) for number in range(simulations)]
            values, kinds = [pooled.value for pooled, _ in found], zip(*found, strict=True)
            for name, rates in zip(("calibrate: interval", "bootstrap over classes"), kinds, strict=True):
                covered = float(np.mean([low <= truth <= high for low, high in map(_ends, rates)]))
                width = np.mean([(high - low) / 3.92 for low, high in map(_ends, rates)]) / np.std(values)
                size = f"{classes} classes of 6 images, {law}; width {width:.2f}"
                yield f"{name} of the pooled FAR", size, covered, False


HUB_DISTANCE, RESAMPLES = 0.75, 300


def _of_hubs(classes: int, hubs: float, number: int) -> tuple[Rate, tuple[float, float]]:
    """The rate with its interval, and the ends of the percentile bootstrap that resamples both classes of a pair."""
    rng = np.random.default_rng((classes, number))
    x, y = draw_sphere(classes, 6, rng, hubs)
    pooled = measure_rates(build_pairs(x, y, None, torch.device("cpu")), 1.0 - HUB_DISTANCE**2 / 2.0).far
    accepted = (x @ x.T >= 1.0 - HUB_DISTANCE**2 / 2.0).reshape(classes, 6, classes, 6).sum(axis=(1, 3))
    np.fill_diagonal(accepted, 0)
    draws = rng.multinomial(classes, np.full(classes, 1.0 / classes), RESAMPLES).astype(float)
    pairs = 36.0 * (draws.sum(axis=1) ** 2 - (draws**2).sum(axis=1))
    rates = ((draws @ accepted) * draws).sum(axis=1) / pairs
    low, high = np.quantile(rates, (0.025, 0.975))
    return pooled, (float(low), float(high))


PROMISED = {"far": 0.01, "frr": 0.2}
KEPT, PROMISE, PROMISE_DRAWS = 0.95, ", promised", 100
Rates = dict[str, float]


def over_promises(simulations: int) -> Iterator[Row]:
    """The promise of `calibrate --confidence 0.95`: share of draws whose true rate keeps the target."""
    for law, draw_one, truth in _promise_laws():
        # Of scattered classes all are alike: their FRR differs by chance alone.
        for kind in ("far", "frr") if law == "circle" else ("far",):
            for classes in (27, 50, 100, 200):
                yield from _promises(
                    f"{law}, {classes} classes", kind, PROMISED[kind], (classes, simulations, draw_one, truth)
                )


def _promise_laws() -> Iterator[tuple[str, Callable[..., Any], Callable[[float], Rates]]]:
    yield "circle", lambda c, rng: draw(c, 6, rng), lambda d: {"far": true_far(d), "frr": true_frr(d)}
    for hubs in (0.0, 0.05):
        apart, near = (sphere_distances(hubs, same=same) for same in (False, True))
        yield (
            f"scattered, {100 * hubs:.0f} % hubs",
            lambda c, rng, h=hubs: draw_sphere(c, 6, rng, h),
            lambda d, a=apart, n=near: {"far": share_within(a, d), "frr": 1.0 - share_within(n, d)},
        )


def _promises(size: str, kind: str, rate: float, how: tuple[Any, ...]) -> Iterator[Row]:
    """One row without and one with the confidence; the price is the mean of the other rate, in points."""
    classes, simulations, draw_one, truth = how
    rates: dict[float | None, list[Rates]] = {None: [], KEPT: []}
    for number in range(simulations):
        x, y = draw_one(classes, np.random.default_rng((classes, number, 1)))
        pairs = build_pairs(x, y, None, torch.device("cpu"))
        for confidence, found in rates.items():
            target = Target(kind, rate, confidence)  # type: ignore[arg-type]
            found.append(truth(find_threshold(pairs, target).distance))
    other = "frr" if kind == "far" else "far"
    price = np.mean([b[other] - a[other] for a, b in zip(*rates.values(), strict=True)])
    for confidence, found in rates.items():
        what = f"{kind.upper()} {rate:g}" + (PROMISE if confidence else ", target of validation")
        extra = f"; price {other.upper()} +{100 * price:.2f} points" if confidence else ""
        kept = float(np.mean([one[kind] <= rate for one in found]))
        yield what, size + extra, kept, confidence is not None


def _ends(rate: Rate | tuple[float, float]) -> tuple[float, float]:
    return (rate.low, rate.high) if isinstance(rate, Rate) else rate


def share(rows: np.ndarray, keep: Callable[[np.ndarray], bool]) -> float:
    """Share of the rows that `keep` keeps."""
    return float(np.mean([keep(row) for row in rows]))


def held(estimate: Estimate, truth: float) -> bool:
    """Whether the interval holds the truth."""
    return estimate.low is not None and estimate.high is not None and estimate.low <= truth <= estimate.high


def table(rows: list[Row]) -> str:
    """Markdown: one row a measurement."""
    lines = ["| what | size | covered | must |", "| --- | --- | ---: | --- |"]
    for what, size, measured, rule in rows:
        wanted = "95 %, less 4.4 points" if what.endswith(PROMISE) else "93 to 97 %"
        verdict = f"{wanted}: {'yes' if holds(what, measured) else 'NO'}" if rule else "-"
        lines.append(f"| {what} | {size} | {100 * measured:.1f} % | {verdict} |")
    return "\n".join(lines)


def holds(what: str, measured: float) -> bool:
    """Whether a rule is kept; a promise within two standard errors of its draws."""
    if what.endswith(PROMISE):
        return measured >= KEPT - 2.0 * (KEPT * (1.0 - KEPT) / PROMISE_DRAWS) ** 0.5
    return LOW <= measured <= HIGH


def main() -> None:
    """Run all, write the page, exit with 1 if a rule is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/validation.md"))
    parser.add_argument("--simulations", type=int, default=2000)
    arguments = parser.parse_args()
    parts, broken = [HEAD], 0
    shares = {over_pairs: 2, over_hubs: 4, over_promises: 20}
    for part in (
        over_seeds,
        over_comparisons,
        over_trajectories,
        over_classes,
        over_pairs,
        over_hubs,
        over_promises,
    ):
        rows = list(part(arguments.simulations // shares.get(part, 1)))
        broken += sum(rule and not holds(what, measured) for what, _, measured, rule in rows)
        parts += [f"## {(part.__doc__ or '').strip()}\n", table(rows) + "\n"]
        print(parts[-1], flush=True)
    write_atomically(arguments.out, "\n".join(parts))
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
