"""The smoke test of the published study: archives in the genuine formats, and every line from them to the table."""

from __future__ import annotations

import json
import shutil

import polars as pl
import pytest
import yaml

from tests.checkout import ROOT, Checkout

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
STUDY = "studies/paper-small"
SETS = ("cub200-small", "cars196-small", "sop-small", "inaturalist2018-small")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    checkout = Checkout(tmp_path_factory.mktemp("paper"))
    study = [f"{STUDY}/{name}" for name in ("params.yaml", "dvc.yaml", "generate.py")]
    for name in ("data/params.yaml", "data/dvc.yaml", "tests/__init__.py", *study):
        (checkout.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout.folder / name)
    for name in ("data/sources", "tests/synthetic"):
        shutil.copytree(ROOT / name, checkout.folder / name)
    done = checkout.dvc("repro", f"{STUDY}/dvc.yaml")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return checkout


def test_every_trial_of_the_sixteen_comparisons_finishes(checkout):
    results = checkout.folder / STUDY / "results"
    trials = pl.read_parquet(results / "trials.parquet")
    assert trials.height == 32
    assert trials["status"].unique().to_list() == ["finished"]
    comparisons = pl.read_csv(results / "comparisons.csv")
    cells = comparisons.filter(pl.col("variant") != "baseline").select("dataset", "backbone", "loss").unique()
    assert cells.height == 16
    assert set(cells["dataset"]) == set(SETS)


def test_the_official_half_is_tested_and_its_classes_are_never_trained_on(checkout):
    for name in SETS:
        folder = checkout.folder / "data/prepared" / name
        summary = json.loads((folder / "dataset.json").read_text())
        manifest = pl.read_parquet(folder / "manifest.parquet")
        assert summary["encoding"] == "jpeg"
        assert summary["counts"]["test"]["classes"] == 8
        by_split = manifest.group_by("split").agg(pl.col("class_name").unique())
        classes = {split: set(names) for split, names in by_split.iter_rows()}
        assert not classes["test"] & (classes["train"] | classes["validation"])


def test_the_final_training_and_the_cut_batch_are_recorded(checkout):
    records = [
        json.loads(path.read_text())
        for path in (checkout.folder / STUDY / "state/records").glob("[!.]*.json")
    ]
    for record in records:
        assert "final" in record["files"]
        assert record["metrics"]["train/batch_size"] == 16
    batch = yaml.safe_load((ROOT / "studies/paper/params.yaml").read_text())["sweep"]["trial"]["train"]
    assert batch["batch_limit"] == "classes"


def test_a_second_run_has_nothing_to_do(checkout):
    done = checkout.dvc("repro", f"{STUDY}/dvc.yaml")
    assert "Running stage" not in done.stdout
