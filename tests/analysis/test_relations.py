"""Part `pareto`: front, table and sentences against the points; the picture names each loss once and apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dmlcore.analysis.breakpoint import Breakpoint, RankCorrelation
from dmlcore.analysis.findings import pareto_sentences, relation_sentence
from dmlcore.analysis.relations import bend_table, configuration_points, pareto_table, relations
from dmlcore.analysis.study import Study
from dmlcore.report.figures.pareto import pareto_figure
from tests.analysis.studies import BEND, LOSSES, as_study, losses_study
from tests.analysis.synthetic import rows, unfinished


@pytest.fixture(scope="module")
def bent() -> Study:
    return losses_study(0.06)


def test_the_table_marks_the_configurations_that_no_other_beats(bent: Study) -> None:
    table = pareto_table(bent, relations(bent)).to_dicts()
    assert len(table) == 36
    for metric in ("test/opis", "test/opis_corrected"):
        at = [(row["test/map_at_r/mean"], row[f"{metric}/mean"]) for row in table]
        naive = [not any(a >= x and o <= y and (a, o) != (x, y) for a, o in at) for x, y in at]
        assert [row[f"front/{metric}"] for row in table] == naive
        assert 1 < sum(naive) < 36


def test_a_point_is_the_mean_over_its_seeds(bent: Study) -> None:
    (point, *_) = configuration_points(bent)["glyphs", "resnet10"]
    values = list(point.cell.values("baseline", "test/opis_corrected").values())
    assert len(values) == 2
    assert point.mean("test/opis_corrected") == pytest.approx(np.mean(values))


def test_a_bend_is_found_and_read(bent: Study) -> None:
    corrected, raw = bend_table(relations(bent)).to_dicts()
    assert (corrected["metric"], raw["metric"]) == ("test/opis_corrected", "test/opis")
    assert corrected["bend"] == pytest.approx(BEND, abs=0.03)
    assert corrected["bend/found"]
    assert corrected["below/points"] + corrected["above/points"] == corrected["points"] == 36
    assert corrected["below/spearman/high"] < 0 < corrected["above/spearman/low"]
    text = pareto_sentences(bent)[0]
    assert f"Breakpoint at MAP@R {corrected['bend']:.4f}" in text
    assert "accuracy is bought with inconsistency holds here" in text


def test_no_bend_is_said_so() -> None:
    straight = losses_study(-0.06)
    assert not bend_table(relations(straight))["bend/found"].any()
    for text in pareto_sentences(straight):
        assert "No bend found" in text
        assert "bought" not in text


def test_a_flatter_slope_is_no_purchase() -> None:
    text = pareto_sentences(losses_study(-0.02, noise=0.0002))[0]
    assert "OPIS falls as accuracy rises above" in text
    assert "does not hold here" in text


def test_few_points_and_none() -> None:
    few = as_study(rows(backbones=("vit",)), "pareto")
    assert all("Too few for a bend" in text for text in pareto_sentences(few))
    nothing = as_study([unfinished(row) for row in rows(backbones=("vit",))], "pareto")
    assert pareto_sentences(nothing) == []
    assert pareto_table(nothing, relations(nothing)).is_empty()


def test_every_loss_is_named_once_a_panel_without_overlap(bent: Study) -> None:
    figure = pareto_figure(bent, relations(bent))
    figure.draw_without_rendering()
    for ax in figure.axes:
        named = [text for text in ax.texts if text.get_text() in LOSSES]
        assert sorted(text.get_text() for text in named) == sorted(LOSSES)
        boxes = [text.get_window_extent() for text in named]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        frame = ax.get_window_extent()
        assert all(frame.x0 - 1 <= box.x0 and box.x1 <= frame.x1 + 1 for box in boxes)


def test_an_interval_that_reaches_0_leaves_it_unclear() -> None:
    below, flat = RankCorrelation(-0.9, -0.95, -0.8, 20), RankCorrelation(0.3, -0.1, 0.6, 16)
    bend = Breakpoint(0.3, (-0.06, 0.01), 0.001, np.zeros(36))
    (found, _) = relations(losses_study(0.06))
    assert "remains unclear here" in relation_sentence(
        replace(found, breakpoint=bend, below=below, above=flat), "test/map_at_r"
    )
