"""What each comparison decides about a metric, and what a variant did to it over all of them.

A comparison decides something only if both its sides have converged, which a longer run has checked, and the interval
of its paired difference leaves out 0. How often a mean rose or fell is counted besides, and decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from dmlcore.analysis.columns import Row, judgement
from dmlcore.analysis.metric_labels import METRICS, format_metric, metric_label, round_significant
from dmlcore.analysis.paired_tests import MAX_SEEDS

SIGNIFICANCE = 0.05
UNDECIDED = "undecided"
NOT_CONVERGED, CONVERGENCE_UNKNOWN, NOT_SHOWN, NO_PAIR = (
    "not converged",
    "no validation curves",
    "convergence not shown (no longer run)",
    "no pair of finished seeds",
)
ONE_PAIR = "one pair of seeds, so no interval"


@dataclass(frozen=True)
class Decision:
    """What one comparison says of one metric."""

    outcome: str
    """`better`, `worse` or UNDECIDED."""
    reason: str = ""
    """Why it is undecided."""
    seeds: int | None = None
    """Pairs of seeds that would decide it with power 0.8, where that is what it lacks and the number is known."""


def decide(row: Row, metric: str) -> Decision:
    """Judge a variant against its baseline.

    Args:
        row: of `comparisons`.
        metric: of METRICS.

    Returns:
        UNDECIDED unless every finished trial of both sides has converged, a longer run of the data set and backbone
        shows that this is no work of the falling learning rate, and the interval of the paired difference leaves out 0.
    """
    if row[f"test/{metric}/difference/mean"] is None:
        return Decision(UNDECIDED, NO_PAIR)
    sides = [(row[f"{side}/converged"], row[f"seeds/{side}"]) for side in ("baseline", "variant")]
    if any(converged is None for converged, _ in sides):
        return Decision(UNDECIDED, CONVERGENCE_UNKNOWN)
    if any(converged < seeds for converged, seeds in sides):
        return Decision(UNDECIDED, NOT_CONVERGED)
    if (shown := row["longer_run/agrees"]) is not True:
        return Decision(UNDECIDED, NOT_SHOWN if shown is None else NOT_CONVERGED)
    if row[f"test/{metric}/difference/low"] is None:
        return Decision(UNDECIDED, ONE_PAIR)
    word = judgement(row, metric)
    if word in ("better", "worse"):
        return Decision(word)
    return Decision(UNDECIDED, "seeds", row[f"test/{metric}/difference/seeds_needed"])


def outcomes_at_equal_accuracy(rows: Sequence[Row]) -> Counter[str]:
    """Count what variants do to OPIS where both sides are equally accurate, of the rows of which that is known.

    That compares points of the paths, whether or not training has converged since.
    """
    name, outcomes = "matched/opis_corrected/difference", Counter[str]()
    for row in rows:
        if row.get(f"{name}/mean") is not None:
            below, above = (row[f"{name}/high"] or 0.0) < 0, (row[f"{name}/low"] or 0.0) > 0
            outcomes["better" if below else "worse" if above else UNDECIDED] += 1
    return outcomes


@dataclass(frozen=True)
class Effect:
    """What a variant did to one metric over its comparisons with the baseline."""

    metric: str
    decisions: tuple[Decision, ...]
    better: int
    """Comparisons whose mean changed for the better, decided or not."""
    size: str
    """The median change, relative where the baseline is not zero."""
    span: str
    """The smallest and the largest change."""
    significant: int | None
    """Comparisons with p < SIGNIFICANCE after Holm's correction."""

    @property
    def comparisons(self) -> int:
        return len(self.decisions)

    @property
    def higher_is_better(self) -> bool:
        return METRICS[self.metric].higher_is_better

    @property
    def name(self) -> str:
        return "accuracy" if self.higher_is_better else "inconsistency"

    @property
    def label(self) -> str:
        return metric_label(self.metric)

    @cached_property
    def counts(self) -> Counter[str]:
        """Decisions by outcome."""
        return Counter(decision.outcome for decision in self.decisions)

    @property
    def words(self) -> dict[str, str]:
        """How the verdict says `better` and `worse`."""
        pair = ("accuracy higher", "accuracy lower") if self.higher_is_better else ("more even", "less even")
        return dict(zip(("better", "worse"), pair, strict=True))

    @property
    def tone(self) -> str:
        """The class of the style sheet: `better`, `worse`, `mixed` or `undecided`."""
        decided = [outcome for outcome in ("better", "worse") if self.counts[outcome]]
        return UNDECIDED if not decided else (decided[0] if len(decided) == 1 else "mixed")

    def sentence(self, name: str = "") -> str:
        """Word what is decided: `more even with TCM in 3 of 4 comparisons, undecided in 1 (9 seeds would be needed)`.

        Args:
            name: of the variant, if it is to be in the sentence.
        """
        parts = [f"{word} in {n}" for key, word in self.words.items() if (n := self.counts[key])]
        if not parts:
            return f"{UNDECIDED}: {self.open_reasons}" + (f" ({name})" if name else "")
        total = f" of {self.comparisons} comparison{'' if self.comparisons == 1 else 's'}"
        parts[0] = parts[0].replace(" in ", f" with {name} in " if name else " in ", 1) + total
        if unknown := self.counts[UNDECIDED]:
            parts.append(f"{UNDECIDED} in {unknown} ({self.open_reasons})")
        return ", ".join(parts)

    @property
    def open_reasons(self) -> str:
        """Why comparisons are undecided, each reason once."""
        open_ones = [d for d in self.decisions if d.outcome == UNDECIDED]
        reasons = Counter(d.reason for d in open_ones)
        texts = [(count, _seeds_text(open_ones) if key == "seeds" else key) for key, count in reasons.items()]
        if len(texts) == 1:
            return texts[0][1]
        return ", ".join(f"{text} in {count}" for count, text in texts)

    @property
    def counted(self) -> str:
        """What was counted, whatever it decides: means, sizes and tests."""
        n = self.comparisons
        text = (
            f"{self.label}: the mean {'rose' if self.higher_is_better else 'fell'} in {self.better} of {n}, "
            f"median change {self.size}" + (f" ({self.span})" if " to " in self.span else "")
        )
        corrected = (
            ""
            if self.significant is None
            else f"; p < {SIGNIFICANCE:g} in {self.significant} after Holm's correction"
        )
        return f"{text}{corrected}"


def _seeds_text(decisions: Sequence[Decision]) -> str:
    """Say how many seeds the comparisons that lack seeds would need."""
    lacking = [decision.seeds for decision in decisions if decision.reason == "seeds"]
    known = sorted(seeds for seeds in lacking if seeds is not None)
    if not known:
        return f"more than {MAX_SEEDS:,} seeds would be needed"
    if len(known) == len(lacking) and known[0] == known[-1]:
        return f"{known[0]:,} seeds would be needed"
    most = f"{known[-1]:,}" if len(known) == len(lacking) else f"more than {MAX_SEEDS:,}"
    return f"{known[0]:,} to {most} seeds would be needed"


def effect_of(rows: Sequence[Row], metric: str) -> Effect:
    """Summarise the comparisons `rows`, which all have a difference."""
    means, shares, p_values = (
        [row[f"test/{metric}/difference/{part}"] for row in rows] for part in ("mean", "relative", "p_holm")
    )
    sign, relative = 1 if METRICS[metric].higher_is_better else -1, None not in shares
    changes = shares if relative else means
    ends = (min(changes), median(changes), max(changes))
    low, size, high = (
        format_share(end) if relative else format_metric(end, metric, signed=True) for end in ends
    )
    corrected = [p for p in p_values if p is not None]
    decisions = tuple(decide(row, metric) for row in rows)
    return Effect(
        metric=metric,
        decisions=decisions,
        better=sum(sign * mean > 0 for mean in means),
        size=size,
        span=low if low == high else f"{low} to {high}",
        significant=sum(p < SIGNIFICANCE for p in corrected) if corrected else None,
    )


def format_share(change: float) -> str:
    """Return a relative change in whole percent, with its sign."""
    share = f"{100 * (round_significant(change) or 0.0):+.0f}\N{NO-BREAK SPACE}%"
    return share.replace("-", "\N{MINUS SIGN}")
