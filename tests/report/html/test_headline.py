"""The words of the headline against numbers set by hand."""

from __future__ import annotations

from typing import Any

from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.verdict import VariantEffects, question, variant_effects
from dmlcore.report.html.page import templates
from tests.analysis.synthetic import TCM, rows, study

LOSSES = ("a", "b", "c", "d", "e", "f")


def effects_of(falls: list[float], losses: int) -> list[VariantEffects]:
    """Corrected OPIS 0.01 without TCM and 0.01 (1 - fall) with it, nearly the same for each seed; MAP@R 0.4 and 0.5."""
    found = rows(("set",), ("vit",), LOSSES[:losses], ("baseline", TCM), (0, 1, 2))
    for row in found:
        variant, fall = row["variant"] != "baseline", falls[LOSSES.index(row["loss"])]
        row["test/opis_corrected"] = 0.01 * (1 - fall * variant) + 1e-5 * row["seed"] * (1 + variant)
        row["test/map_at_r"] = 0.4 + 0.1 * variant + 1e-4 * row["seed"] * (1 + variant)
    return variant_effects(comparisons(study(found)).to_dicts())


def headline_text(variant: VariantEffects) -> str:
    return str(macros().headline_text(variant))


def sentences(variant: VariantEffects) -> list[str]:
    found = [macros().effect_sentence(variant.name, effect, "95 %") for effect in variant.effects]
    return [str(sentence).replace("\N{NO-BREAK SPACE}", " ") for sentence in found]


def macros() -> Any:
    return templates().get_template("macros.html.j2").module


def test_two_sentences_say_whether_how_much_and_how_sure() -> None:
    (variant,) = effects_of([0.5, 0.2, 0.1, -0.1], 4)
    assert sentences(variant) == [
        "TCM lowered inconsistency (OPIS corr.) in 3 of 4 comparisons, with a median change of −15 % (from −50 % to "
        "+10 %); the 95 % interval excludes zero in 4 of 4 (1 of them worse, 4 after Holm’s correction).",
        "TCM raised accuracy (MAP@R) in 4 of 4 comparisons, with a median change of +25 %; the 95 % interval excludes "
        "zero in 4 of 4 (4 after Holm’s correction).",
    ]
    assert "3 of 4" in headline_text(variant)
    assert (variant.inconsistency.clearly_better, variant.inconsistency.clearly_worse) == (3, 1)
    assert variant.inconsistency.overall == "too few for a test"


def test_what_got_worse_is_said_so() -> None:
    (variant,) = effects_of([-0.5, -0.2, 0.1], 3)
    assert headline_text(variant) == (
        "TCM: one threshold serves the classes less evenly in 2 of 3 comparisons, accuracy is higher in 3 of 3"
    )
    assert sentences(variant)[0].startswith("TCM raised inconsistency (OPIS corr.) in 2 of 3 comparisons, ")
    assert variant.tone == "mixed"
    assert [effects_of(falls, 1)[0].tone for falls in ([-0.5], [0.5])] == ["mixed", "better"]
    assert "in 1 of 1 comparison, accuracy" in headline_text(effects_of([0.5], 1)[0])


def test_six_comparisons_are_tested_together() -> None:
    (variant,) = effects_of([0.5, 0.4, 0.3, 0.2, 0.1, 0.15], 6)
    assert variant.inconsistency.overall == "p = 0.031"


def test_each_variant_has_its_headline() -> None:
    found = rows(("set",), ("vit",), ("ap",), ("baseline", TCM, "language_guidance(omega=1)"), (0, 1))
    given = variant_effects(comparisons(study(found)).to_dicts())
    assert [headline_text(variant).split(":")[0] for variant in given] == ["Language guidance", "TCM"]


def test_one_variant_alone_is_no_question_of_tcm() -> None:
    found = comparisons(study(rows(("set",), ("vit",), ("ap",), ("baseline",), (0, 1)))).to_dicts()
    assert variant_effects(found) == []
    assert "TCM" not in question(found)
    assert question(comparisons(study(rows())).to_dicts()).startswith("Does TCM make one distance threshold")
