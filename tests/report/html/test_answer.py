"""The answer's words against numbers set by hand."""

from __future__ import annotations

from typing import Any

from dmlcore.analysis.comparisons import comparisons
from dmlcore.report.html.answer import answers, question
from tests.analysis.synthetic import TCM, rows, study

LOSSES = ("a", "b", "c", "d", "e", "f")


def answered(falls: list[float], losses: int) -> Any:
    """Corrected OPIS 0.01 without TCM and 0.01 (1 - fall) with it, nearly the same for each seed; MAP@R 0.4 and 0.5."""
    found = rows(("set",), ("vit",), LOSSES[:losses], ("baseline", TCM), (0, 1, 2))
    for row in found:
        on, fall = row["variant"] != "baseline", falls[LOSSES.index(row["loss"])]
        row["test/opis_corrected"] = 0.01 * (1 - fall * on) + 1e-5 * row["seed"] * (1 + on)
        row["test/map_at_r"] = 0.4 + 0.1 * on + 1e-4 * row["seed"] * (1 + on)
    return answers(comparisons(study(found)).to_dicts(), 0.95)


def test_two_sentences_say_whether_how_much_and_how_sure() -> None:
    (answer,) = answered([0.5, 0.2, 0.1, -0.1], 4)
    assert [sentence.replace("\N{NO-BREAK SPACE}", " ") for sentence in answer.sentences] == [
        "TCM lowered inconsistency (OPIS corr.) in 3 of 4 comparisons, with a median change of −15 % (from −50 % to "
        "+10 %); sure, by its 95 % interval, in 4 of 4 (1 of them worse, 4 after Holm's correction).",
        "TCM raised accuracy (MAP@R) in 4 of 4 comparisons, with a median change of +25 %; sure, by its 95 % interval, "
        "in 4 of 4 (4 after Holm's correction).",
    ]
    assert "3 of 4" in answer.headline
    assert (answer.scores[0].sure_better, answer.scores[0].sure_worse) == (3, 1)
    assert answer.scores[0].overall == "too few for a test"


def test_what_got_worse_is_said_so() -> None:
    (answer,) = answered([-0.5, -0.2, 0.1], 3)
    assert answer.headline == (
        "TCM: one threshold serves the classes less evenly in 2 of 3 comparisons, accuracy is higher in 3 of 3"
    )
    assert answer.sentences[0].startswith("TCM raised inconsistency (OPIS corr.) in 2 of 3 comparisons, ")
    assert answer.tone == "mixed"
    assert [answered(falls, 1)[0].tone for falls in ([-0.5], [0.5])] == ["mixed", "better"]
    assert "in 1 of 1 comparison, accuracy" in answered([0.5], 1)[0].headline


def test_six_comparisons_are_tested_together() -> None:
    (answer,) = answered([0.5, 0.4, 0.3, 0.2, 0.1, 0.15], 6)
    assert answer.scores[0].overall == "p = 0.031"


def test_each_variant_has_an_answer_of_its_own() -> None:
    found = rows(("set",), ("vit",), ("ap",), ("baseline", TCM, "language_guidance(omega=1)"), (0, 1))
    given = answers(comparisons(study(found)).to_dicts(), 0.95)
    assert [answer.headline.split(":")[0] for answer in given] == ["Language guidance", "TCM"]


def test_one_variant_alone_is_no_question_of_tcm() -> None:
    found = comparisons(study(rows(("set",), ("vit",), ("ap",), ("baseline",), (0, 1)))).to_dicts()
    assert answers(found, 0.95) == []
    assert "TCM" not in question(found)
    assert question(comparisons(study(rows())).to_dicts()).startswith("Does TCM make one distance threshold")
