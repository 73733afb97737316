"""`dvc exp run`: what a queued experiment trained is kept, though DVC removes the copy that it ran in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dmlcore.sweep.execution.guards import keep_state
from tests.checkout import SWEEP, Checkout


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_trials_of_a_queued_experiment_are_kept(tmp_path):
    checkout = Checkout(tmp_path, git=True)
    checkout.params["sweep"] = {**SWEEP, "seeds": [0], "regularizers": [[]]}
    checkout.write("params.yaml", checkout.params)
    assert checkout.dvc("repro", "data/dvc.yaml").returncode == 0
    checkout.git("add", "-A")
    checkout.git("commit", "--quiet", "--message", "data")
    queued = checkout.dvc("exp", "run", "--queue", "--name", "one", "--set-param", "sweep.seeds=[7]")
    assert queued.returncode == 0, queued.stderr
    done = checkout.dvc("exp", "run", "--run-all")
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = checkout.records().values()
    assert json.loads(record)["labels"]["seed"] == 7
    assert list((tmp_path / "state/storage").rglob("best.safetensors"))
    assert checkout.dvc("exp", "apply", "one").returncode == 0
    again = checkout.dvc("repro")
    assert "Stage 'sweep' didn't change, skipping" in again.stdout
    assert (tmp_path / "results/trials.parquet").is_file()


@pytest.mark.parametrize("study", ["", "studies/mine"])
@pytest.mark.parametrize("copy", [".dvc/tmp/exps/tmp1", ".dvc/tmp/exps/standalone/tmp2"])
def test_the_state_of_a_copy_is_that_of_the_checkout(tmp_path, copy, study):
    there = tmp_path / copy
    (there / study / "state" / "records").mkdir(parents=True)
    keep_state(there / study, there)
    keep_state(there / study, there)
    (there / study / "state" / "records" / "one.json").write_text("{}")
    assert (tmp_path / study / "state" / "records" / "one.json").is_file()


def test_a_checkout_keeps_its_own(tmp_path):
    keep_state(tmp_path, tmp_path)
    assert list(Path(tmp_path).iterdir()) == []
