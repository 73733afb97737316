"""What the plots draw, and how the curves of several seeds become one."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from dmlcore.config.study import AggregateConfig
from dmlcore.metrics.plot import colours, utility_png
from dmlcore.report.figures.tradeoff import intervals_readable, tradeoff_figure, tradeoff_points
from dmlcore.report.figures.utility import utility_curve, utility_figure
from tests.analysis.synthetic import TCM, rows, study, unfinished


def texts(figure: Figure) -> str:
    """All that is written on a figure."""
    written = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    return " ".join(" ".join(written).split())


def test_points_are_the_means_of_the_chosen_metrics() -> None:
    found = rows(backbones=("vit",))
    config = AggregateConfig(accuracy="test/recall_at_1", inconsistency="test/opis_corrected")
    drawn = tradeoff_points(study(found, config))
    assert len(drawn) == 4
    for point in drawn:
        mine = [row for row in found if (row["loss"], row["variant"]) == (point.cell.loss, point.variant)]
        x = np.mean([row["test/opis_corrected"] for row in mine])
        y = np.mean([row["test/recall_at_1"] for row in mine])
        assert point.xy == pytest.approx((x, y))


def test_the_plot_says_which_bars_it_draws_and_under_which_protocol() -> None:
    narrow = study(rows(backbones=("vit",), seeds=range(8)))
    assert intervals_readable(tradeoff_points(narrow))
    text = texts(tradeoff_figure(narrow))
    for part in (
        "95 % t-interval",
        "lower is better",
        "higher is better",
        "better",
        "epoch chosen by",
        "Pareto front",
    ):
        assert part in text
    wide = rows(backbones=("vit",), seeds=(0, 1))
    for row in wide:
        row["test/opis"] += 0.02 * row["seed"]
    assert not intervals_readable(tradeoff_points(study(wide)))
    assert "1 standard error" in texts(tradeoff_figure(study(wide)))


def test_lost_trials_are_named_on_the_plot() -> None:
    found = rows(backbones=("vit",))
    found[2] = unfinished(found[2])
    assert "glyphs (11 of 12 trials finished)" in texts(tradeoff_figure(study(found)))
    found[:3] = [unfinished(row) for row in found[:3]]
    assert texts(utility_figure(study(found))).count("no finished trial") == 1


def test_the_curve_of_a_configuration_is_the_mean_over_its_seeds() -> None:
    found = rows(backbones=("vit",), losses=("smooth_ap",))
    found[4] = unfinished(found[4])
    (cell,) = study(found).cells
    curve = utility_curve(cell, TCM)
    assert curve is not None
    assert curve.seeds == 2
    for name, values in (("thresholds", curve.thresholds), ("mean", curve.mean), ("low", curve.low)):
        a, b = found[3][f"utility/{name}"], found[5][f"utility/{name}"]
        assert values == pytest.approx([(x + y) / 2 for x, y in zip(a, b, strict=True)])
    assert curve.span[0] == pytest.approx((found[3]["test/distance_min"] + found[5]["test/distance_min"]) / 2)


def test_colours_stay_apart_and_readable_on_white() -> None:
    for count in (3, 7, 20):
        found = colours([str(i) for i in range(count)])
        assert len(set(found.values())) == count
        assert max(np.dot(to_rgb(c), (0.2126, 0.7152, 0.0722)) for c in found.values()) < 0.85


def test_a_plot_of_one_set_of_embeddings() -> None:
    utility = np.random.default_rng(0).random((5, 11))
    found: Any = SimpleNamespace(
        utility=utility, thresholds=np.linspace(0.5, 1.0, 11), metrics={"opis": 0.02}
    )
    with Image.open(io.BytesIO(utility_png(found))) as image:
        assert image.width > image.height
