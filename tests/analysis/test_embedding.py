"""Part `embedding`: the stored embeddings of a trial, and what is drawn of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlcore.analysis.embedding import embeddings_path, load_trial_embeddings, stored_tensors
from dmlcore.analysis.findings import embedding_sentences
from dmlcore.metrics.evaluation import evaluate
from dmlcore.report.figures.embedding import class_colours, embedding_figure, spread
from dmlcore.report.outputs import write_results
from tests.analysis.studies import as_study, toy_rows
from tests.analysis.synthetic import unfinished
from tests.report.test_figures import texts


def test_the_variants_are_side_by_side_over_their_utility(tmp_path: Path) -> None:
    study = as_study(toy_rows(tmp_path), "embedding", tmp_path)
    drawn = load_trial_embeddings(study)
    assert drawn is not None
    assert [(p.variant.split("(")[0], p.row["seed"]) for p in drawn] == [("baseline", 0), ("tcm", 0)]
    figure = embedding_figure(study, drawn)
    clouds, utilities = figure.axes[:2], figure.axes[2:]
    for ax, picture in zip(clouds, drawn, strict=True):
        points = np.concatenate([np.ma.getdata(cloud.get_offsets()) for cloud in ax.collections])
        scale = np.quantile(np.linalg.norm(picture.embeddings, axis=1), 0.95)
        assert points == pytest.approx(picture.embeddings / scale)
        assert {text.get_text() for text in ax.texts} == {"0", "1", "2", "3"}
    for ax, picture in zip(utilities, drawn, strict=True):
        thresholds = np.asarray(ax.lines[0].get_xdata())
        span = (float(thresholds[0]), float(thresholds[-1]))
        found = evaluate(picture.embeddings, picture.labels, num_thresholds=201, distance_range=span)
        assert np.stack([line.get_ydata() for line in ax.lines]) == pytest.approx(found.utility)
        assert f"OPIS {picture.row['test/opis']:.5f}" in ax.get_title()
        (band,) = ax.patches
        assert band.get_x() == pytest.approx(picture.row["test/distance_min"])
    assert "baseline (no regulariser)" in texts(figure)


def test_a_seed_that_only_one_variant_finished_is_not_shown(tmp_path: Path) -> None:
    found = toy_rows(tmp_path)
    found[0] = unfinished(found[0])
    drawn = load_trial_embeddings(as_study(found, "embedding", tmp_path))
    assert drawn is not None
    assert [p.row["seed"] for p in drawn] == [1, 1]
    assert all("seed 1" in text for text in embedding_sentences(as_study(found, "embedding")))


def test_a_changed_file_is_not_drawn_and_a_key_is_no_path(tmp_path: Path) -> None:
    found = toy_rows(tmp_path)
    study = as_study(found, "embedding", tmp_path)
    key = found[0]["trial_key"]
    assert stored_tensors(study, key) is not None
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "test.safetensors").write_bytes(b"")
    assert embeddings_path(replace(study, storage=tmp_path / "y"), "../x-7488e813") is None
    path = embeddings_path(study, key)
    assert path is not None
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert stored_tensors(study, key) is None
    assert load_trial_embeddings(study) is None


def test_without_the_storage_the_committed_picture_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, results = toy_rows(tmp_path / "storage"), tmp_path / "results"
    write_results(as_study(found, "embedding", tmp_path / "storage"), results)
    before = (results / "embedding.png").read_bytes()
    assert capsys.readouterr().out == ""
    for storage in (tmp_path / "elsewhere", None):
        write_results(as_study(found, "embedding", storage), results)
        assert "embedding.png is left as it is" in capsys.readouterr().out
        assert (results / "embedding.png").read_bytes() == before


def test_embeddings_of_another_width_are_refused(tmp_path: Path) -> None:
    study = as_study(toy_rows(tmp_path, width=3), "embedding", tmp_path)
    with pytest.raises(ValueError, match=r"draws embeddings of width 2.*embedding_dim: 2"):
        load_trial_embeddings(study)


def test_no_finished_trial_draws_nothing(tmp_path: Path) -> None:
    found = [unfinished(row) for row in toy_rows(tmp_path)]
    assert load_trial_embeddings(as_study(found, "embedding", tmp_path)) is None


@given(st.lists(st.floats(-180, 180), min_size=1, max_size=10))
def test_names_on_the_ring_keep_apart(angles: list[float]) -> None:
    moved = np.sort(spread(np.array(angles), 9.0) % 360)
    gaps = np.diff([*moved, moved[0] + 360])
    assert len(angles) == 1 or gaps.min() > 8.0
    assert (
        np.argsort(spread(np.array(angles), 9.0), kind="stable").tolist()
        == np.argsort(np.array(angles), kind="stable").tolist()
    )


def test_names_that_are_apart_stay() -> None:
    angles = np.array([10.0, -170.0, 90.0])
    assert spread(angles, 9.0) == pytest.approx(angles)


def test_each_class_has_a_colour() -> None:
    for count in (2, 10, 30):
        assert len(set(class_colours(range(count)).values())) == count
