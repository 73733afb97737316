"""Part `margins`: grouped by family, chosen on validation alone, shown at the right cell of the grid."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from matplotlib.patches import Rectangle

from dmlcore.analysis.findings import margins_sentences
from dmlcore.analysis.margins import chosen_table, margins_table
from dmlcore.analysis.tuned_settings import best_setting, chosen_study, regularizer_family, tuned_settings
from dmlcore.report.figures.heat_maps import grid_values, heat_map_figure
from tests.analysis.studies import as_study, margins_rows, margins_study
from tests.analysis.synthetic import rows, study, unfinished
from tests.report.test_figures import texts

BASE, TCM_ALONE, WITH_TCM = (
    ("glyphs", "resnet10", "smooth_ap", "baseline"),
    ("glyphs", "resnet10", "none", "tcm"),
    ("glyphs", "resnet10", "smooth_ap", "tcm"),
)
CHOSEN = {"tcm.negative_margin": 0.4, "tcm.positive_margin": 0.8}


def test_a_family_is_the_regularisers_without_their_parameters() -> None:
    assert regularizer_family(
        '[{"name": "tcm", "params": {"a": 1}}, {"name": "language_guidance", "params": {}}]'
    ) == ("tcm+language_guidance")
    assert regularizer_family("[]") == regularizer_family(None) == "baseline"


def test_settings_are_counted_by_loss_and_family() -> None:
    found = tuned_settings(margins_study())
    assert {place: len(tried) for place, tried in found.items()} == {BASE: 4, TCM_ALONE: 9, WITH_TCM: 9}
    assert found[BASE][0].parameters == {"train.optimizer.learning_rate": 0.001}
    assert found[WITH_TCM][0].parameters == {"tcm.negative_margin": 0.3, "tcm.positive_margin": 0.7}
    assert all(setting.trials.height == 2 for tried in found.values() for setting in tried)


def test_validation_chooses_not_test() -> None:
    found = tuned_settings(margins_study())
    best = best_setting(found[WITH_TCM])
    assert best is not None
    assert best.parameters == CHOSEN
    assert best.mean("test/map_at_r") == pytest.approx(0.3 + 0.8 * 0.4 / 2 + 0.0005)
    base = best_setting(found[BASE])
    assert base is not None
    assert base.text == "learning_rate=0.003"


def test_a_setting_that_lost_a_seed_is_not_chosen() -> None:
    found = margins_rows()
    best = next(i for i, row in enumerate(found) if "0.4,positive_margin=0.8" in row["variant"])
    found[best] = unfinished(found[best])
    assert found[best]["loss"] == "smooth_ap"
    table = chosen_table(as_study(found, "margins")).row(by_predicate=_is(WITH_TCM), named=True)
    assert (table["settings/tried"], table["settings/eligible"]) == (9, 8)
    assert table["setting"] != "negative_margin=0.4, positive_margin=0.8"


def test_more_seeds_of_some_settings_do_not_move_the_choice() -> None:
    more = [row for row in margins_rows((2,)) if "0.5,positive_margin=0.9" in row["variant"]]
    for row in more:
        row["validation/map_at_r"] = 0.99
    found = tuned_settings(as_study(margins_rows() + more, "margins"))
    best = best_setting(found[WITH_TCM])
    assert best is not None
    assert best.parameters == CHOSEN


def test_the_tables_hold_every_setting_and_the_choice() -> None:
    every, table = margins_table(margins_study()), chosen_table(margins_study())
    assert every.height == 22
    assert every.filter("chosen")["setting"].to_list() == table["setting"].to_list()
    row = table.row(by_predicate=_is(WITH_TCM), named=True)
    assert row["seeds/selection"] == "0, 1"
    assert (row["seeds"], row["converged"]) == (2, 2)
    mean, half = 0.4605, 12.706205 * 0.0005  # t of 1 degree of freedom, standard error 0.001 / 2
    assert [row[f"test/map_at_r/{p}"] for p in ("mean", "low", "high")] == pytest.approx(
        [mean, mean - half, mean + half], rel=1e-4
    )


def test_the_summary_compares_the_chosen_settings_alone() -> None:
    shown = chosen_study(margins_study())
    assert shown.variants == ["baseline", "tcm"]
    assert [(cell.loss, list(cell.variants), dict(cell.axes)) for cell in shown.cells] == [
        ("none", ["tcm"], {}),
        ("smooth_ap", ["baseline", "tcm"], {}),
    ]
    text = " ".join(margins_sentences(margins_study()))
    assert "smooth_ap + tcm: 9 settings tried, chosen negative_margin=0.4, positive_margin=0.8" in text
    assert "smooth_ap + tcm, chosen, less smooth_ap alone, chosen: MAP@R +0.1570" in text
    assert "tcm alone: no base" in text


def test_the_grid_has_each_value_in_its_cell_and_frames_the_choice() -> None:
    found = tuned_settings(margins_study())
    ups, downs, values = grid_values(found[WITH_TCM], "test/map_at_r")
    assert (ups, downs) == ([0.7, 0.8, 0.9], [0.3, 0.4, 0.5])
    expected = 0.3005 + np.outer(downs, ups) / 2
    assert values == pytest.approx(expected)
    figure = heat_map_figure(margins_study())
    panels = [ax for ax in figure.axes if ax.images]
    assert len(panels) == 8
    for ax in panels:
        (frame,) = (patch for patch in ax.patches if isinstance(patch, Rectangle))
        assert frame.get_xy() == (0.5, 0.5)
    shown = [float(text.get_text()) for text in panels[6].texts]
    assert shown == pytest.approx(expected.ravel(), abs=6e-4)
    assert panels[6].get_title() == "test MAP@R\nbaseline: 0.303"


def test_a_lost_cell_of_the_grid_is_a_dash() -> None:
    found = [
        unfinished(row) if "0.3,positive_margin=0.7" in row["variant"] else row for row in margins_rows()
    ]
    (ax, *_) = (ax for ax in heat_map_figure(as_study(found, "margins")).axes if ax.images)
    assert [text.get_text() for text in ax.texts].count("-") == 1


def test_studies_without_a_grid_or_a_finished_trial_say_so() -> None:
    assert "no grid of two margins" in texts(heat_map_figure(study(rows(backbones=("vit",)))))
    nothing = as_study([unfinished(row) for row in margins_rows()], "margins")
    assert chosen_table(nothing)["setting"].to_list() == [None] * 3
    assert "none with all its seeds" in " ".join(margins_sentences(nothing))
    heat_map_figure(nothing)


def _is(place: tuple[str, str, str, str]) -> pl.Expr:
    return (pl.col("loss") == place[2]) & (pl.col("family") == place[3])
