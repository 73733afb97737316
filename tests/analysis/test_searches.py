"""A study with a search: the chosen settings are compared, what else was tried is listed and nothing more."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.findings import alone_sentences, caveats
from dmlcore.analysis.results import read_study
from dmlcore.analysis.searches import search_sentences
from dmlcore.config.study import AggregateConfig
from dmlcore.report.figures.search import front as pareto_of
from dmlcore.report.html.page import report_html
from dmlcore.report.html.tables import search_table
from dmlcore.report.outputs import metrics_summary, write_results
from dmlcore.report.text.tables import markdown_table
from tests.analysis.synthetic import dataset_info, table, trial, unfinished

RATE, MARGIN = "train.optimizer.learning_rate", "regularizers.tcm.params.positive_margin"
VARIANTS = {"baseline": None, "tcm": 0.9}


def searched(variant, ask, role, seed=0, rate=0.01, status="finished"):
    row = trial("glyphs", "resnet10", "smooth_ap", variant, seed)
    key = f"{row['trial_key']}-{ask}"
    row |= {"role": role, "ask": ask, f"search/{RATE}": rate, f"config/{RATE}": rate, "trial_key": key}
    row |= {f"search/{MARGIN}": VARIANTS[variant]}
    if status == "finished":
        return row
    return unfinished(row, status, "stopped early at epoch 4, rung 2: validation MAP@R 0.1") | {
        name: row[name] for name in row if name.startswith("search/")
    }


def rows():
    """Two variants whose chosen learning rates differ, three seeds of each; four settings tried a variant."""
    found = []
    for variant, rate in (("baseline", 0.02), ("tcm", 0.005)):
        found += [searched(variant, 2, "chosen", seed, rate) for seed in (0, 1, 2)]
        found += [searched(variant, 0, "searched"), searched(variant, 1, "searched", status="stopped")]
        found += [searched(variant, 3, "front", rate=0.04)]
    return found


@pytest.fixture
def folder(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    table(rows()).write_parquet(results / "trials.parquet")
    (results / "datasets.json").write_text(json.dumps({"glyphs": dataset_info()}))
    return tmp_path


def test_the_chosen_settings_are_compared_although_they_differ(folder):
    study = read_study(folder, AggregateConfig())
    (row,) = comparisons(study).to_dicts()
    assert (row["variant"], row["seeds/planned"], row["seeds/paired"]) == ("tcm", 3, 3)
    assert row["status"] is None
    assert not [name for name in row if name.startswith("axis/")]
    expected = [searched("baseline", 2, "chosen", seed)["test/map_at_r"] for seed in (0, 1, 2)]
    assert row["test/map_at_r/baseline/mean"] == pytest.approx(sum(expected) / 3)
    assert metrics_summary(study)["trials"] == {"finished": 6}


def test_the_sentences_say_what_was_tried_and_chosen(folder):
    study = read_study(folder, AggregateConfig())
    baseline, tcm, seed = search_sentences(study)
    assert seed.startswith("The seed at which settings were chosen may be")  # an older table does not name it
    best = searched("tcm", 2, "chosen", 0)["validation/map_at_r"]
    assert baseline.startswith(
        "Search of glyphs resnet10 smooth_ap baseline: 4 settings tried (1 stopped early). Chosen on"
    )
    assert f"Chosen on validation: learning_rate=0.005, positive_margin=0.9 (MAP@R {best:.4f}, OPIS " in tcm
    assert "Not beaten in both objectives either: learning_rate=0.04, positive_margin=0.9 (" in tcm
    assert "Search of glyphs resnet10 smooth\\_ap tcm: 4 settings tried" in markdown_table(study)


def with_notes(found, tried=None, **notes):
    """The rows as the sweep writes them: the seed of the search in all, the rule and the count in the chosen ones."""
    tried = tried or {}
    return [
        row
        | {"search_seed": 0}
        | ({"tried": tried.get(row["variant"], 4), **notes} if row["role"] == "chosen" else {})
        for row in found
    ]


def test_the_seed_of_the_search_is_not_compared_unless_asked(folder):
    found = with_notes(rows(), choice="knee of a front of 2")
    table(found).write_parquet(folder / "results" / "trials.parquet")
    study = read_study(folder, AggregateConfig())
    (row,) = comparisons(study).to_dicts()
    assert (row["seeds/planned"], row["seeds/paired"]) == (2, 2)
    said = search_sentences(study)
    assert said[-1] == "Seed 0, at which the settings were chosen, is not among those compared."
    assert "4 settings tried" in said[0]
    assert "Chosen on validation by knee of a front of 2: learning_rate=0.02" in said[0]
    counted = read_study(folder, AggregateConfig(count_search_seed=True))
    assert comparisons(counted)["seeds/paired"].to_list() == [3]
    assert "is counted among those compared" in search_sentences(counted)[-1]


def test_a_study_with_the_seed_of_the_search_alone_counts_it_and_says_so(folder):
    found = with_notes([row for row in rows() if row["seed"] == 0])
    table(found).write_parquet(folder / "results" / "trials.parquet")
    study = read_study(folder, AggregateConfig())
    assert comparisons(study)["seeds/paired"].to_list() == [1]
    assert "is counted among those compared" in search_sentences(study)[-1]


def test_arms_with_more_settings_tried_than_the_baseline_are_named(folder):
    table(with_notes(rows(), {"baseline": 1, "tcm": 20})).write_parquet(folder / "results" / "trials.parquet")
    study = read_study(folder, AggregateConfig())
    found = comparisons(study).to_dicts()
    assert (found[0]["baseline/settings_tried"], found[0]["variant/settings_tried"]) == (1, 20)
    assert any("1 for the baseline, 20 for the variant" in note for note in caveats(study, found))
    table(with_notes(rows())).write_parquet(folder / "results" / "trials.parquet")
    equal = read_study(folder, AggregateConfig())
    assert not any("settings tried" in note for note in caveats(equal, comparisons(equal).to_dicts()))


def test_the_list_of_settings_shows_validation_alone(folder):
    study = read_study(folder, AggregateConfig())
    found = search_table(study, "http://runs.example/{trial_key}")
    assert not [name for name in found.columns if "test" in name]
    shown = [[value.text for value in row.cells] for row in found.rows]
    assert [(cells[3], cells[4], cells[5]) for cells in shown[:4]] == [
        ("baseline", "0", "searched"),
        ("baseline", "1", "searched"),
        ("baseline", "2", "chosen"),
        ("baseline", "3", "front"),
    ]
    assert "cut short" in shown[1][7]
    assert "rung 2" in shown[1][-1]
    assert shown[1][8:10] == ["-", "-"]
    assert found.rows[0].cells[-2].link.startswith("http://runs.example/")


def test_the_page_lists_them_apart_from_the_trials(folder):
    page = report_html(read_study(folder, AggregateConfig()))
    assert "8 settings tried by the searches" in page
    assert "6 trials" in page


def test_a_study_without_a_search_has_none_of_it(folder):
    plain = table(rows()).filter(role="chosen").drop("role", "ask", f"search/{RATE}", f"search/{MARGIN}")
    plain.with_columns(pl.lit(0.01).alias(f"config/{RATE}")).write_parquet(
        folder / "results" / "trials.parquet"
    )
    study = read_study(folder, AggregateConfig())
    assert search_sentences(study) == []
    assert search_table(study, None) is None
    assert "settings tried" not in report_html(study)


def test_before_a_setting_is_chosen_there_is_nothing_to_compare(folder):
    table(rows()).filter(pl.col("role") != "chosen").write_parquet(folder / "results" / "trials.parquet")
    with pytest.raises(ValueError, match="6 were tried"):
        read_study(folder, AggregateConfig())


def test_part_search_writes_every_setting_and_its_picture(folder, tmp_path):
    study = read_study(folder, AggregateConfig(parts=("search",)))
    write_results(study, tmp_path / "a")
    write_results(study, tmp_path / "b")
    assert (tmp_path / "a" / "search.png").read_bytes() == (tmp_path / "b" / "search.png").read_bytes()
    written = pl.read_csv(tmp_path / "a" / "search.csv")
    assert written.group_by("variant", "role").len().sort("variant", "role").rows() == [
        (variant, role, count)
        for variant in ("baseline", "tcm")
        for role, count in (("chosen", 1), ("front", 1), ("searched", 2))
    ]
    assert set(written.filter(pl.col("role") == "front")["setting"]) == {
        "learning_rate=0.04",
        "learning_rate=0.04, positive_margin=0.9",
    }
    assert not [name for name in written.columns if "test" in name]


def test_the_front_is_that_of_the_naive_search():
    points = np.random.default_rng(0).integers(0, 8, (40, 2)).astype(float)
    beaten = [
        any((q[0] <= p[0] and q[1] >= p[1]) and (q[0] < p[0] or q[1] > p[1]) for q in points) for p in points
    ]
    naive = sorted({tuple(p) for p, worse in zip(points, beaten, strict=True) if not worse})
    assert [tuple(p) for p in pareto_of(points)] == naive


def test_a_regulariser_alone_is_compared_with_each_baseline(folder):
    alone = [trial("glyphs", "resnet10", "none", "tcm", seed) for seed in (0, 1, 2)]
    based = [trial("glyphs", "resnet10", "smooth_ap", "baseline", seed) for seed in (1, 2, 3)]
    table(alone + based).write_parquet(folder / "results" / "trials.parquet")
    (sentence,) = alone_sentences(read_study(folder, AggregateConfig()))
    both = [(alone[seed]["test/map_at_r"], based[seed - 1]["test/map_at_r"]) for seed in (1, 2)]
    mean = sum(a - b for a, b in both) / 2
    assert f"tcm without a base loss, less smooth_ap alone: MAP@R {mean:+.4f} (" in sentence
    assert sentence.endswith("2 pairs).")
