"""The tables of trials against a recount from the table that the page was made of."""

from __future__ import annotations

import math
from statistics import mean
from typing import Any

import pytest
from scipy import stats

from dmlcore.analysis.metric_labels import METRICS, variant_label
from dmlcore.report.html.page import report_html
from tests.analysis.studies import margins_study
from tests.analysis.synthetic import TCM, rows, study, unfinished
from tests.report.html.made import Cell, Page


def planned() -> list[dict[str, Any]]:
    found = rows(("a", "b"), ("vit",), ("ms", "ap"), ("baseline", TCM), (0, 1, 2))
    found[0] = unfinished(found[0])
    found[7] = unfinished(found[7], "stopped", None)
    found[14] = unfinished(found[14], "missing", "not run yet")
    return found


def number(cell: Cell) -> float | None:
    return None if cell.value is None else float(cell.value)


def values(found: list[dict[str, Any]], names: dict[str, Any], metric: str) -> dict[int, float]:
    """A recount: seed -> value over the finished trials of a configuration."""
    mine = [row for row in found if all(row[name] == value for name, value in names.items())]
    return {row["seed"]: row[f"test/{metric}"] for row in mine if row["status"] == "finished"}


def holm(p_values: list[float]) -> list[float]:
    """The largest of (n - j) p_(j) so far, by rising p."""
    order, running, corrected = sorted(range(len(p_values)), key=lambda i: p_values[i]), 0.0, {}
    for j, i in enumerate(order):
        running = max(running, (len(p_values) - j) * p_values[i])
        corrected[i] = min(1.0, running)
    return [corrected[i] for i in range(len(p_values))]


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(report_html(study(planned())))


def test_comparisons_equal_a_recount(page: Page) -> None:
    found = planned()
    assert len(page.table("comparisons")) == 4 * len(METRICS)
    for row in page.table("comparisons"):
        metric = next(name for name, known in METRICS.items() if known.label == row["metric"].text)
        place = {"dataset": row["data set"].text, "backbone": "vit", "loss": row["loss"].text}
        baseline, on = (values(found, place | {"variant": variant}, metric) for variant in ("baseline", TCM))
        pairs = sorted(baseline.keys() & on.keys())
        differences = [on[seed] - baseline[seed] for seed in pairs]
        assert row["pairs"].value == str(len(pairs))
        assert number(row["baseline"]) == pytest.approx(mean(baseline.values()), rel=1e-5)
        assert number(row["variant"]) == pytest.approx(mean(on.values()), rel=1e-5)
        assert number(row["difference"]) == pytest.approx(mean(differences), rel=1e-5)
        low, high = stats.t.interval(0.95, len(on) - 1, mean(on.values()), stats.sem(list(on.values())))
        assert [float(end) for end in row["variant"].text.split(None, 1)[1].split(" to ")] == pytest.approx(
            [low, high], abs=6e-5
        )
        assert number(row["p"]) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=1e-4)


def test_holms_family_is_one_metric_over_the_study(page: Page) -> None:
    for label in (METRICS[metric].label for metric in METRICS):
        mine = [row for row in page.table("comparisons") if row["metric"].text == label]
        expected = holm([number(row["p"]) or 0.0 for row in mine])
        assert [number(row["p (Holm)"]) for row in mine] == pytest.approx(expected, rel=1e-4)


def test_every_trial_is_in_the_table_with_its_numbers(page: Page) -> None:
    found = {row["trial_key"]: row for row in planned()}
    shown = page.table("trials")
    assert {row["trial"].value for row in shown} == set(found)
    assert [row["status"].value for row in shown[:4]].count("finished") == 1, (
        "those without a result come first"
    )
    for row in shown:
        trial = found[row["trial"].value or ""]
        names = [row[name].text for name in ("data set", "loss")]
        assert names == [trial["dataset"], trial["loss"]]
        assert row["status"].value == trial["status"]
        for metric in METRICS:
            value = number(row[METRICS[metric].label])
            assert value == (
                None if trial[f"test/{metric}"] is None else pytest.approx(trial[f"test/{metric}"], rel=1e-5)
            )


def test_a_column_that_says_one_thing_is_said_once(page: Page) -> None:
    comparisons = page.heads["comparisons"]
    assert {"data set", "loss"} <= set(comparisons)
    assert not {"backbone", "regulariser"} & set(comparisons)
    assert f"In all rows: backbone: vit; regulariser: {variant_label(TCM)}." in page.html
    assert "regulariser" in page.heads["trials"]


def test_what_has_no_result_is_shown_as_such(page: Page) -> None:
    texts = {row["status"].value: row for row in page.table("trials") if row["status"].value != "finished"}
    assert {key: row["status"].text.split(" ", 1)[1] for key, row in texts.items()} == {
        "failed": "failed",
        "stopped": "cut short",
        "missing": "missing",
    }
    assert texts["failed"]["error"].text == "ValueError: loss is NaN"
    assert "3 of 24 trials are not finished" in page.html


def test_a_rising_curve_has_its_mark() -> None:
    found = rows(("a",), ("vit",), ("ms",), ("baseline", TCM), (0, 1))
    found[0]["curve/validation/map_at_r"] = [0.05 * epoch for epoch in range(11)]
    page = Page(report_html(study(found)))
    marks = {row["trial"].value: row["converged"].text for row in page.table("trials")}
    assert marks[found[0]["trial_key"]] == "† no"
    assert list(marks.values()).count("yes") == 3
    assert "3 of 4 had converged" in page.html
    assert all("†3 of 4 conv." in row["pairs"].text for row in page.table("comparisons"))


def test_marks_and_curves_equal_a_recount(page: Page) -> None:
    found = planned()
    for mark in page.data["tradeoff"]["points"]:
        names = {name: mark[name] for name in ("dataset", "backbone", "loss", "variant")}
        for axis, metric in (("x", "opis_corrected"), ("y", "map_at_r")):
            seeds = list(values(found, names, metric).values())
            assert mark[axis] == pytest.approx(mean(seeds), rel=1e-5)
    for mark in page.data["tradeoff"]["points"]:
        others = [m for m in page.data["tradeoff"]["points"] if m["dataset"] == mark["dataset"]]
        beaten = any(
            m["x"] <= mark["x"] and m["y"] >= mark["y"] and (m["x"], m["y"]) != (mark["x"], mark["y"])
            for m in others
        )
        assert mark["front"] is not beaten
    for cell in page.data["utility"]:
        for variant, name in zip(cell["variants"], ("baseline", TCM), strict=True):
            mine = [
                r
                for r in found
                if (r["dataset"], r["loss"], r["variant"]) == (cell["dataset"], cell["loss"], name)
            ]
            curves = [r["utility/mean"] for r in mine if r["status"] == "finished"]
            assert variant["mean"] == pytest.approx([mean(at) for at in zip(*curves, strict=True)], abs=6e-5)


def test_heat_maps_hold_the_mean_of_each_margin() -> None:
    made = margins_study()
    grids = Page(report_html(made)).data["heat_maps"]
    assert len(grids) == 2 * 4
    for grid in grids:
        metric = "opis_corrected" if grid["low_is_good"] else "map_at_r"
        column = f"{'validation' if 'validation' in grid['title'] else 'test'}/{metric}"
        for y, row in zip(grid["y"], grid["z"], strict=True):
            for x, value in zip(grid["x"], row, strict=True):
                variant = f"tcm(negative_margin={y},positive_margin={x})"
                trials = made.trials.filter(variant=variant, loss=grid["loss"])
                assert value == pytest.approx(trials[column].mean(), rel=1e-5)
        assert (grid["x"][grid["chosen"][0]], grid["y"][grid["chosen"][1]]) == ("0.8", "0.4")


def test_a_study_without_a_finished_trial_is_a_page_too() -> None:
    page = Page(report_html(study([unfinished(row) for row in rows(("a",), ("vit",), ("ms",))])))
    assert "Undecided: no seed finished both" in page.html
    assert page.data["tradeoff"]["points"] == []
    assert {row["status"].value for row in page.table("trials")} == {"failed"}
    assert all(math.isnan(number(row["baseline"]) or math.nan) for row in page.table("comparisons"))
