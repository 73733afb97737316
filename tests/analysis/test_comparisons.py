"""The comparison and baseline tables against a naive recount of the same rows."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
from scipy.stats import ttest_1samp

from dmlcore.analysis.baselines import baselines
from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.metric_labels import METRICS
from dmlcore.analysis.study import Study
from dmlcore.config.study import AggregateConfig
from dmlcore.report.text.tables import markdown_table
from tests.analysis.synthetic import BACKBONES, LOSSES, TCM, dataset_info, rows, study, table, unfinished


def recount(found: list[dict[str, Any]], cell: dict[str, Any], variant: str, metric: str) -> dict[int, float]:
    """Seed -> value, by going through all rows."""
    names = {"dataset", "backbone", "loss"}
    return {
        row["seed"]: row[metric]
        for row in found
        if row["variant"] == variant and all(row[n] == cell[n] for n in names) and row["status"] == "finished"
    }


@pytest.mark.parametrize("metric", METRICS)
def test_every_number_equals_a_naive_recount(metric: str) -> None:
    found = rows(datasets=("glyphs", "grocery"))
    found[4], found[17] = unfinished(found[4]), unfinished(found[17], "missing", None)
    key = f"test/{metric}"
    result = comparisons(study(found)).to_dicts()
    assert len(result) == 2 * len(BACKBONES) * len(LOSSES)
    for row in result:
        baseline, variant = recount(found, row, "baseline", key), recount(found, row, TCM, key)
        assert row[f"{key}/baseline/mean"] == pytest.approx(sum(baseline.values()) / len(baseline))
        assert row[f"{key}/variant/mean"] == pytest.approx(sum(variant.values()) / len(variant))
        differences = [variant[seed] - baseline[seed] for seed in baseline if seed in variant]
        assert row["seeds/paired"] == len(differences)
        assert row[f"{key}/difference/mean"] == pytest.approx(statistics.fmean(differences))
        low, high = ttest_1samp(differences, 0.0).confidence_interval(0.95)
        assert (row[f"{key}/difference/low"], row[f"{key}/difference/high"]) == pytest.approx((low, high))
        base = statistics.fmean(baseline[seed] for seed in baseline if seed in variant)
        assert row[f"{key}/difference/relative"] == pytest.approx(statistics.fmean(differences) / base)


def test_unfinished_trials_are_counted_and_named() -> None:
    found = rows(backbones=("vit_tiny",), losses=("smooth_ap",))
    found[1] = unfinished(found[1], error="ValueError: loss is NaN\nat step 3")
    found[5] = unfinished(found[5], "missing", "not run yet")
    (row,) = comparisons(study(found)).to_dicts()
    counts = [row[f"seeds/{name}"] for name in ("planned", "baseline", "variant", "paired")]
    assert counts == [3, 2, 2, 1]
    assert (
        row["status"] == f"baseline: seed 1 failed (ValueError: loss is NaN at step 3); {TCM}: seed 2 missing"
    )
    assert row["test/opis/difference/mean"] is not None
    assert row["test/opis/difference/low"] is None


def test_complete_cells_have_no_status() -> None:
    assert comparisons(study(rows()))["status"].null_count() == len(BACKBONES) * len(LOSSES)


def test_a_study_without_a_finished_trial_keeps_its_rows() -> None:
    found = [{k: v for k, v in unfinished(row).items() if v is not None} for row in rows()]
    table_ = comparisons(study(found))
    assert table_.height == 4
    assert table_["test/map_at_r/baseline/mean"].null_count() == 4
    assert table_["variant/beats_untrained"].null_count() == 4


def test_a_metric_that_some_seeds_lack_is_noted() -> None:
    found = rows(backbones=("vit_tiny",), losses=("smooth_ap",))
    found[0]["test/opis_corrected"] = None
    found[1]["test/opis_corrected"] = math.nan
    (row,) = comparisons(study(found)).to_dicts()
    assert "baseline: test/opis_corrected of 1 of 3 seeds" in row["status"]
    assert row["test/opis_corrected/difference/mean"] == pytest.approx(
        found[5]["test/opis_corrected"] - found[2]["test/opis_corrected"]
    )


def test_a_variant_alone_has_a_row() -> None:
    (baseline,) = comparisons(study(rows(("glyphs",), ("vit",), ("arcface",), ("baseline",)))).to_dicts()
    assert (baseline["variant"], baseline["seeds/paired"], baseline["test/opis/difference/mean"]) == (
        "baseline",
        0,
        None,
    )
    assert baseline["test/opis/variant/mean"] == baseline["test/opis/baseline/mean"]
    (tcm,) = comparisons(study(rows(("glyphs",), ("vit",), ("none",), (TCM,)))).to_dicts()
    assert tcm["status"] == "no variant baseline in the plan"
    assert tcm["test/opis/variant/mean"] is not None


def test_swept_axes_split_cells_and_constant_ones_do_not() -> None:
    found = rows(**{"train.batch_size": 64, "train.epochs": 8}) + rows(
        **{"train.batch_size": 128, "train.epochs": 8}
    )
    result = comparisons(study(found))
    assert [name for name in result.columns if name.startswith("axis/")] == ["axis/train.batch_size"]
    assert result["axis/train.batch_size"].to_list() == ["64", "128"] * 4


def test_baselines_decide_what_has_learned() -> None:
    found = rows(backbones=("vit_tiny",), losses=("smooth_ap",))
    for row in found:
        row["untrained/recall_at_1"] = row["test/recall_at_1"] + (
            0.01 if row["variant"] == "baseline" else 0.0
        )
    (row,) = comparisons(study(found)).to_dicts()
    assert row["baseline/beats_untrained"] is False
    (row,) = comparisons(study(rows(backbones=("vit_tiny",), losses=("smooth_ap",)))).to_dicts()
    assert (row["baseline/beats_untrained"], row["variant/beats_untrained"]) == (True, True)
    assert row["raw_pixels/recall_at_1"] == dataset_info()["raw_pixels"]["test/recall_at_1"]


def test_baselines_count_each_seed_once() -> None:
    result = baselines(study(rows())).to_dicts()
    assert [(r["baseline"], r["backbone"], r["seeds"]) for r in result] == [
        ("raw_pixels", None, None),
        ("untrained", "resnet10t", 3),
        ("untrained", "vit_tiny", 3),
    ]
    assert result[0]["test/opis/mean"] == 0.043
    assert result[1]["test/recall_at_1/mean"] == pytest.approx((0.09 + 0.092 + 0.094) / 3)
    low, high = ttest_1samp([0.09, 0.092, 0.094], 0.0).confidence_interval(0.95)
    assert result[1]["test/recall_at_1/low"] == pytest.approx(low)
    assert result[1]["test/recall_at_1/high"] == pytest.approx(high)


def test_pretrained_features_are_a_baseline_where_they_were_measured() -> None:
    found = rows()
    for row in found:
        if row["backbone"] == BACKBONES[0]:
            row["features/map_at_r"], row["features/recall_at_1"], row["features/opis"] = 0.3, 0.8, 0.02
    result = [row for row in baselines(study(found)).to_dicts() if row["baseline"] == "features"]
    (row,) = result
    assert (row["backbone"], row["seeds"]) == (BACKBONES[0], 3)
    assert row["test/recall_at_1/mean"] == pytest.approx(0.8)
    assert "| pretrained features, no head |" in markdown_table(study(found))
    assert "pretrained features, no head" not in markdown_table(study(rows()))


def test_each_table_carries_its_protocol() -> None:
    expected = (
        "glyphs: disjoint classes: 884 train, 177 validation, 354 test; epoch chosen by validation MAP@R; "
        "seeds 0, 1, 2; calibration range FAR 0.01 to 0.1 of the test negatives; mean and 95 % t-interval over seeds"
    )
    for result in (baselines(study(rows())), comparisons(study(rows()))):
        assert set(result["protocol"]) == {expected}


def test_faulty_input_is_refused_with_the_fix() -> None:
    found = rows()
    with pytest.raises(ValueError, match=r"lacks \['status'\]"):
        Study(table(found).drop("status"), {})
    with pytest.raises(ValueError, match=r"lacks \['glyphs'\]"):
        Study(table(found), {})
    with pytest.raises(ValueError, match=r"`aggregate.accuracy` must be a metric .* got 'test/typo'"):
        Study(table(found), {"glyphs": dataset_info()}, AggregateConfig(accuracy="test/typo"))
    with pytest.raises(ValueError, match="must have each seed once"):
        comparisons(study([*found, {**found[0], "trial_key": "twin"}]))
