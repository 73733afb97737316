"""The rule of convergence at its edges, and where it shows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.convergence import (
    convergence_mark,
    convergence_note,
    count_converged,
    has_converged,
    longer_evidence,
    longer_runs,
)
from dmlcore.analysis.results import read_study
from dmlcore.analysis.study import Study
from dmlcore.analysis.verdict import verdict
from dmlcore.config.study import AggregateConfig
from dmlcore.report.figures.convergence import convergence_figure
from dmlcore.report.text.tables import markdown_table
from tests.analysis.studies import losses_study, margins_study
from tests.analysis.synthetic import (
    TCM,
    dataset_info,
    longer_runs_of,
    rows,
    study,
    table,
    unfinished,
)
from tests.report.test_figures import texts
from tests.report.test_tables import printed

FLAT = [0.0, *[0.4] * 10]


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (FLAT, True),
        ([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], False),
        ([*FLAT[:-1], 0.4 * 1.0203], True),  # (max - min) / max
        ([*FLAT[:-1], 0.4 * 1.0205], False),
        ([*FLAT[:-1], 0.39], False),  # what falls at its end has not converged either
        ([*FLAT[:9], 0.1, 0.4], False),  # nor what moves within the last fifth
        ([*FLAT[:7], 0.2, 0.4, 0.4, 0.4], True),  # before it, it may
        ([0.1, 0.2], False),
        ([0.2, 0.2], True),
        ([0.1, 0.4, 0.4], False),  # two epochs alone are flat by chance
        ([0.1, 0.4, 0.4, 0.4], True),
        ([0.1], None),
        ([], None),
        ([*FLAT[:-1], None], None),
        ([*FLAT[:-1], float("nan")], None),
        ([0.0, None, 0.4, 0.4, 0.4, 0.4], True),
    ],
)
def test_the_last_fifth_of_the_epochs_is_within_2_percent(
    curve: list[float | None], expected: bool | None
) -> None:
    assert has_converged(curve) is expected


def longer(score: float, **changes: object) -> pl.DataFrame:
    """One configuration of `with_rising(0)`, trained for three times the epochs up to a validation MAP@R of `score`."""
    row = with_rising(0)[0] | {"config/train.epochs": 30, "curve/validation/map_at_r": [0.0, *[score] * 30]}
    return table([row | changes])


def checked(long: pl.DataFrame) -> Study:
    found = with_rising(0)
    for row in found:
        row["config/train.epochs"] = 10
        row["curve/validation/map_at_r"] = FLAT
    return replace(study(found), longer=long)


@pytest.mark.parametrize(("score", "agrees"), [(0.4, True), (0.4199, True), (0.4201, False), (0.2, True)])
def test_a_longer_run_checks_the_flat_ends(score: float, agrees: bool) -> None:
    found = checked(longer(score))
    (run,) = longer_runs(found)
    assert (run.agrees, run.epochs, run.longer_epochs) == (agrees, 10, 30)
    assert longer_evidence(found) == {("glyphs", "vit"): agrees}
    assert run.sentence in (convergence_note(found) or "")
    assert (
        verdict(found, comparisons(found).to_dicts())[0][0].startswith("Undecided: not converged")
        is not agrees
    )


def test_a_longer_run_of_something_else_checks_nothing() -> None:
    for other in ({"seed": 9}, {"loss": "other"}, {"config/train.epochs": 10}, {"variant": "other"}):
        assert longer_runs(checked(longer(0.9, **other))) == []
    other = checked(longer(0.9, seed=9))
    assert "no longer run (`sweep.longer_run`) checks that" in (convergence_note(other) or "")
    assert longer_evidence(other) == {}
    text = verdict(other, comparisons(other).to_dicts())[0][0]
    assert text.startswith("Undecided: convergence not shown (no longer run)")


@pytest.mark.parametrize(
    ("epochs", "score", "evidence"),
    [
        (14, 0.4, {}),  # too little longer to show that learning had ended
        (14, 0.5, {("glyphs", "vit"): False}),  # enough to show that it had not
        (15, 0.4, {("glyphs", "vit"): True}),
    ],
)
def test_a_run_that_is_hardly_longer_can_only_refute(epochs: int, score: float, evidence: dict) -> None:
    run = longer(score, **{"config/train.epochs": epochs})
    assert longer_evidence(checked(run)) == evidence


def test_a_longer_run_speaks_for_its_data_set_and_backbone_alone() -> None:
    found = rows(("birds", "glyphs"), losses=("smooth_ap",))
    kept = longer_runs_of(found).filter(pl.col("dataset") == "birds", pl.col("backbone") == "vit_tiny")
    made = replace(study(found), longer=kept)
    table_ = comparisons(made)
    shown = {(row["dataset"], row["backbone"]): row["longer_run/agrees"] for row in table_.to_dicts()}
    assert shown.pop(("birds", "vit_tiny")) is True
    assert set(shown.values()) == {None}
    assert len(shown) == 3


def test_a_longer_run_matches_the_swept_settings_too() -> None:
    found = [
        row | {"config/train.batch_size": size, "curve/validation/map_at_r": [0.0, *[score] * 10]}
        for size, score in ((64, 0.4), (256, 0.2))
        for row in rows(backbones=("vit",), losses=("smooth_ap",))
    ]
    run = longer_runs_of([row for row in found if row["config/train.batch_size"] == 64])
    made = replace(study(found), longer=run)
    (pair,) = longer_runs(made)
    assert (pair.score, pair.agrees) == (0.4, True)


def test_a_longer_run_that_failed_is_named() -> None:
    found = rows(backbones=("vit",), losses=("smooth_ap",))
    lost = unfinished(longer_runs_of(found).to_dicts()[0])
    made = replace(study(found), longer=table([lost]))
    note = convergence_note(made) or ""
    assert "The longer run of glyphs vit has not finished (failed): ValueError: loss is NaN." in note


def test_the_longer_runs_of_a_sweep_are_read_apart(tmp_path: Path) -> None:
    found = rows(backbones=("vit",))
    (tmp_path / "results").mkdir()
    whole = pl.concat([table(found), longer_runs_of(found)], how="diagonal_relaxed")
    whole.write_parquet(tmp_path / "results" / "trials.parquet")
    (tmp_path / "results" / "datasets.json").write_text(json.dumps({"glyphs": dataset_info()}))
    made = read_study(tmp_path, AggregateConfig())
    assert made.trials.height == len(found)
    assert made.longer is not None
    assert made.longer["config/train.epochs"].to_list() == [30]
    assert made.searched is None
    assert longer_evidence(made) == {("glyphs", "vit"): True}


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


def test_few_variants_have_a_colour_each() -> None:
    close = "tcm(negative_margin=0.4,positive_margin=0.75)"
    figure = convergence_figure(study(rows(variants=("baseline", close, TCM))))
    handles = {" ".join(line.get_label().split()): line.get_color() for line in figure.legends[0].get_lines()}
    assert list(handles) == ["baseline", *(name.replace(",", ", ") for name in (close, TCM))]
    assert len(set(handles.values())) == 3
    for panel in (ax for ax in figure.axes if ax.lines):
        assert {line.get_color() for line in panel.lines} == set(handles.values())


def test_many_variants_of_one_family_have_one_colour() -> None:
    figure = convergence_figure(margins_study())
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == ["baseline", "tcm"]
