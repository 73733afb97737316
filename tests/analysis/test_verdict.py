"""What a study decides and what it leaves open, on made-up studies of every kind."""

from __future__ import annotations

from typing import Any

import pytest

from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.effects import decide
from dmlcore.analysis.verdict import VariantVerdict, question, variant_verdicts, verdict
from tests.analysis.synthetic import TCM, rows, study

LOSSES = ("a", "b", "c", "d", "e", "f")
FLAT, RISING = [0.01, *[0.4] * 10], [0.04 * epoch for epoch in range(11)]


def made_up(
    falls: list[float],
    *,
    gain: float = 0.1,
    seeds: int = 3,
    spread: float = 1e-5,
    rising: tuple[str, ...] = (),
) -> list[dict[str, Any]]:
    """A comparison a fall: corrected OPIS 0.01 without TCM and 0.01 (1 - fall) with it, MAP@R 0.4 and 0.4 + gain.

    Args:
        spread: how much the differences vary over the seeds.
        rising: variants whose curves rise to their ends.
    """
    found = rows(("set",), ("vit",), LOSSES[: len(falls)], ("baseline", TCM), range(seeds))
    for row in found:
        on, fall = row["variant"] != "baseline", falls[LOSSES.index(row["loss"])]
        row["test/opis_corrected"] = 0.01 * (1 - fall * on) + spread * row["seed"] * on
        row["test/map_at_r"] = 0.4 + gain * on + spread * row["seed"] * on
        row["curve/validation/map_at_r"] = RISING if row["variant"] in rising else FLAT
    return found


def judged(found: list[dict[str, Any]]) -> VariantVerdict:
    (judgement,) = variant_verdicts(comparisons(study(found)).to_dicts(), 0.95)
    return judgement


def worded(found: list[dict[str, Any]]) -> str:
    parts = verdict(study(found), comparisons(study(found)).to_dicts())
    text = " ".join(f"{headline} {details}" for headline, details in parts)
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_converged_and_clear_is_decided() -> None:
    found = judged(made_up([0.5, 0.2, 0.1, 0.3]))
    assert found.headline == "More even with TCM in 4 of 4 comparisons; accuracy higher in 4 of 4 comparisons"
    assert found.tone == "better"


def test_what_got_worse_is_said_so() -> None:
    found = judged(made_up([-0.5], gain=-0.1))
    assert found.headline == "Less even with TCM in 1 of 1 comparison; accuracy lower in 1 of 1 comparison"
    assert found.tone == "worse"


def test_opposite_decisions_are_both_named() -> None:
    found = judged(made_up([0.5, -0.2, 0.1]))
    assert found.headline.startswith("More even with TCM in 2 of 3 comparisons, less even in 1; ")
    assert found.tone == "mixed"


@pytest.mark.parametrize("rising", [("baseline",), (TCM,), ("baseline", TCM)])
def test_nothing_is_decided_before_both_sides_have_converged(rising: tuple[str, ...]) -> None:
    found = made_up([0.5, 0.2, 0.1, 0.3], rising=rising)
    assert judged(found).headline == "Undecided: not converged (TCM, consistency and accuracy alike)"
    assert judged(found).tone == "undecided"
    assert worded(found).startswith("Undecided: not converged")
    assert "more even" not in worded(found).lower()


def test_one_trial_that_has_not_converged_leaves_its_comparison_open() -> None:
    found = made_up([0.5, 0.2])
    found[0]["curve/validation/map_at_r"] = RISING
    assert judged(found).headline.startswith(
        "More even with TCM in 1 of 2 comparisons, undecided in 1 (not converged); "
    )


def test_an_interval_with_0_in_it_names_the_seeds_that_it_lacks() -> None:
    found = made_up([0.001], spread=1e-4)
    (row,) = comparisons(study(found)).to_dicts()
    needed = row["test/opis_corrected/difference/seeds_needed"]
    assert row["test/opis_corrected/difference/low"] < 0 < row["test/opis_corrected/difference/high"]
    assert judged(found).headline.startswith(f"Undecided: {needed} seeds would be needed (TCM); accuracy ")


def test_one_pair_of_seeds_decides_nothing() -> None:
    found = judged(made_up([0.5], seeds=1))
    # the spread over seeds is not known, so no number of seeds is named
    assert (
        found.headline == "Undecided: one pair of seeds, so no interval (TCM, consistency and accuracy alike)"
    )
    assert found.tone == "undecided"


def test_without_curves_nothing_is_decided() -> None:
    found = made_up([0.5])
    for row in found:
        del row["curve/validation/map_at_r"]
    assert judged(found).headline.startswith("Undecided: no validation curves")


def test_without_a_longer_run_nothing_is_decided() -> None:
    """A falling learning rate flattens every curve: flat ends alone show nothing."""
    unchecked = study(made_up([0.5, 0.2, 0.1, 0.3]), checked=False)
    headline = verdict(unchecked, comparisons(unchecked).to_dicts())[0][0]
    reason = "convergence not shown (no longer run)"
    assert headline == f"Undecided: {reason} (TCM, consistency and accuracy alike)."


def test_each_reason_is_counted() -> None:
    found = made_up([0.5, 0.0, 0.2], spread=1e-4)
    for row in found[:6]:
        row["curve/validation/map_at_r"] = RISING
    text = judged(found).inconsistency.sentence()
    assert text.startswith("more even in 1 of 3 comparisons, undecided in 2 (not converged in 1, ")
    assert text.endswith(" seeds would be needed in 1)")


def test_the_counts_come_after_and_decide_nothing() -> None:
    text = worded(made_up([0.5, 0.2, 0.1, -0.1], rising=(TCM,)))
    assert text.index("Undecided") < text.index("Counts, which do not enter the verdict")
    assert "OPIS corr.: the mean fell in 3 of 4, median change −15 % (−50 % to +10 %)" in text
    assert "MAP@R: the mean rose in 4 of 4, median change +25 %" in text


def test_a_network_below_its_own_features_is_said_first() -> None:
    found = made_up([0.5])
    for row in found:
        row["features/recall_at_1"], row["features/map_at_r"] = 0.82, 0.4
        row["test/recall_at_1"] = 0.74 if row["variant"] == "baseline" else 0.90
    text = worded(found)
    assert (
        "In 1 of 2 configurations the trained network is less accurate than its pretrained features" in text
    )
    assert "(R@1 0.740 for 0.820)" in text
    assert text.index("pretrained features") < text.index("Counts,")


def test_each_variant_has_its_verdict() -> None:
    found = rows(("set",), ("vit",), ("ap",), ("baseline", TCM, "language_guidance(omega=1)"), (0, 1))
    given = variant_verdicts(comparisons(study(found)).to_dicts(), 0.95)
    assert [each.name.split("(")[0] for each in given] == ["language_guidance", "TCM"]


def test_one_variant_alone_is_no_question_of_tcm() -> None:
    found = study(rows(("set",), ("vit",), ("ap",), ("baseline",), (0, 1)))
    compared = comparisons(found).to_dicts()
    assert variant_verdicts(compared, 0.95) == []
    assert verdict(found, compared)[0][0].startswith("One variant alone")
    assert "TCM" not in question(compared)
    assert question(comparisons(study(rows())).to_dicts()).startswith("Does TCM make one distance threshold")


def test_no_finished_pair_is_undecided() -> None:
    found = [row for row in made_up([0.5]) if (row["variant"] == "baseline") == (row["seed"] == 0)]
    assert worded(found).startswith("Undecided: no seed finished both")
    (row,) = comparisons(study(found)).to_dicts()
    assert decide(row, "opis_corrected").reason == "no pair of finished seeds"
