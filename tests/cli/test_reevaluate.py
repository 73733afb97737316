"""`dmlcore reevaluate`: other settings, the same embeddings, the records left alone."""

from __future__ import annotations

import hashlib

import polars as pl
import pytest
from typer.testing import CliRunner

from dmlcore.cli import app
from dmlcore.cli.options import INCOMPLETE, WRONG_INPUT
from dmlcore.metrics.evaluation import evaluate
from tests.cli.study import drawn, write_study


def call(*arguments):
    return CliRunner().invoke(app, ["reevaluate", *map(str, arguments)])


def digests(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.*"))}


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_metrics_under_other_settings(tmp_path, suffix):
    records = write_study(tmp_path / "study")
    before, out = digests(tmp_path / "study"), tmp_path / f"again.{suffix}"
    done = call("--study", tmp_path / "study", "--far-range", 0.001, 0.05, "--k", 3, "--out", out)
    assert done.exit_code == 0, done.output
    assert digests(tmp_path / "study") == before
    table = pl.read_parquet(out) if suffix == "parquet" else pl.read_csv(out)
    assert table["trial_key"].to_list() == [record.trial_key for record in records]
    assert table["variant"].to_list() == [record.labels["variant"] for record in records]
    for number, row in enumerate(table.iter_rows(named=True)):
        test = drawn(30, 5, 2 * number + 1)
        expected = evaluate(test["embeddings"], test["labels"], ks=(3,), far_range=(0.001, 0.05)).metrics
        assert row["test/opis"] == pytest.approx(expected["opis"])
        assert row["test/recall_at_3"] == pytest.approx(expected["recall_at_3"])
        assert row["test/opis"] != pytest.approx(records[number].metrics["test/opis"])
        assert f"opis {row['test/opis']:.5f}" in done.output


def test_settings_not_given_stay_the_trial_s_own(tmp_path):
    records = write_study(tmp_path / "study")
    call("--study", tmp_path / "study", "--out", tmp_path / "same.parquet")
    table = pl.read_parquet(tmp_path / "same.parquet")
    for record, row in zip(records, table.iter_rows(named=True), strict=True):
        assert {key: row[key] for key in record.metrics} == pytest.approx(record.metrics)


def test_a_trial_whose_files_are_gone_is_named_and_the_others_measured(tmp_path):
    records = write_study(tmp_path / "study")
    (tmp_path / "study" / "state" / "storage" / records[2].train_key[:16] / "test.safetensors").unlink()
    done = call("--study", tmp_path / "study", "--out", tmp_path / "again.csv")
    assert done.exit_code == INCOMPLETE
    assert f"not evaluated: {records[2].trial_key}" in done.output
    assert pl.read_csv(tmp_path / "again.csv").height == len(records) - 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "a.xlsx"], "must end in .parquet or .csv"),
        (["--far-range", "0.1", "0.01"], "two rising numbers"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, arguments, words):
    write_study(tmp_path / "study")
    done = call("--study", tmp_path / "study", *arguments)
    assert done.exit_code == WRONG_INPUT
    assert words in done.output


def test_a_study_without_a_finished_trial_is_refused(tmp_path):
    done = call("--study", tmp_path)
    assert done.exit_code == WRONG_INPUT
    assert "finished trial" in done.output
