"""The rule of convergence at its edges, and where it shows."""

from __future__ import annotations

import numpy as np
import pytest

from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.convergence import convergence_mark, convergence_note, count_converged, still_rising
from dmlcore.report.figures.convergence import convergence_figure
from dmlcore.report.text.tables import markdown_table
from tests.analysis.studies import losses_study, margins_study
from tests.analysis.synthetic import TCM, rows, study, unfinished
from tests.report.test_figures import texts
from tests.report.test_tables import printed

FLAT = [0.0, *[0.4] * 10]


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (FLAT, False),
        ([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], True),
        ([*FLAT[:-1], 0.4 * 1.049], False),
        ([*FLAT[:-1], 0.4 * 1.051], True),
        ([*FLAT[:9], 0.1, 0.41], False),  # a dip at 90 % is not a rise
        ([*FLAT[:8], 0.2, 0.41, 0.41], False),  # nor is one at 80 %: the best so far counts
        ([0.0, *[0.4] * 8, 0.6, 0.3], False),  # fell again: not rising at its end
        ([0.1, 0.2], True),
        ([0.1], None),
        ([], None),
        ([*FLAT[:-1], None], None),
        ([0.0, None, 0.4, None, 0.4, 0.4], False),
        ([None, None, 0.4], False),
        ([0.0, 0.0, 0.0, 0.0, 0.0, 0.1], True),
    ],
)
def test_the_last_epoch_is_held_against_the_best_of_the_first_80_percent(
    curve: list[float | None], expected: bool | None
) -> None:
    assert still_rising(curve) is expected


def with_rising(count: int) -> list:
    found = rows(backbones=("vit",), losses=("smooth_ap",))
    for row in found[:count]:
        row["curve/validation/map_at_r"] = [0.1 * epoch for epoch in range(11)]
    return found


def test_comparisons_count_the_converged_of_each_side() -> None:
    found = with_rising(4)  # the three seeds of the baseline, one of tcm
    (row,) = comparisons(study(found)).to_dicts()
    assert (row["baseline/converged"], row["variant/converged"]) == (0, 2)
    assert convergence_mark(row) == "†2 of 6 conv."
    found[5] = unfinished(found[5])
    assert comparisons(study(found))["variant/converged"].to_list() == [1]


def test_tables_mark_what_has_not_converged_and_say_the_rule() -> None:
    for text in (printed(with_rising(4)), markdown_table(study(with_rising(4)))):
        assert "†2 of 6 conv." in text
        assert "2 of 6 trials have converged. † not converged: validation" in " ".join(
            text.replace("\\", "").split()
        )
    assert "†" not in "".join(printed(with_rising(0)).partition("† not converged")[::2])


def test_old_tables_without_curves_say_nothing() -> None:
    found = rows(backbones=("vit",))
    for row in found:
        del row["curve/validation/map_at_r"]
    (cell, _) = study(found).cells
    assert count_converged(cell, TCM) is None
    assert convergence_note(study(found)) is None
    assert "†" not in printed(found)


def test_the_figure_has_a_panel_a_loss_and_a_ring_at_each_rising_end() -> None:
    figure = convergence_figure(study(with_rising(4)))
    (panel,) = (ax for ax in figure.axes if ax.lines)
    rings = [line for line in panel.lines if line.get_marker() == "o"]
    ends = [np.isnan(line.get_ydata()).sum() for line in panel.lines if line not in rings]
    assert sum(ends) == 6  # a gap after each trial
    assert [list(line.get_xdata()) for line in rings] == [[10] * 3, [10]]
    assert "2 of 6 converged" in texts(figure)
    assert sum(bool(ax.lines) for ax in convergence_figure(losses_study(0.05)).axes) == 12


def test_many_configurations_are_a_panel_a_data_set() -> None:
    found = rows(("birds", "cars"), ("vit",), tuple(f"loss {number}" for number in range(13)), seeds=(0,))
    figure = convergence_figure(study(found))
    assert sum(bool(ax.lines) for ax in figure.axes) == 2
    assert "26 of 26 converged" in texts(figure)


def test_variants_of_one_family_have_one_colour() -> None:
    figure = convergence_figure(margins_study())
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == ["baseline", "tcm"]
