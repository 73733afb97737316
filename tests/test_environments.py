"""A sweep where users have it: odd paths and locales, one CPU, other numbers of threads, `dvc exp`, seeds that change.

What issue trackers of other tools report and what worked here, each with the test that holds it:

| case | test |
| --- | --- |
| spaces, quotes and accents in the path; a git worktree; LANG=C; one CPU by affinity | here |
| OMP_NUM_THREADS 1 and 8; empty CUDA_VISIBLE_DEVICES; HOME that cannot be written; two clones at once | here |
| `dvc exp run` in the workspace, `exp show`, `metrics diff`; seeds added and removed | here |
| `dvc exp run --queue` | test_experiments.py |
| Ctrl-C once and twice, SIGTERM, SIGHUP; 64 MB of /dev/shm; a full TMPDIR | faults/test_signals.py |
| a TMPDIR that is too long, an address of Ray that is wrong | sweep/test_private_session.py, sweep/test_address.py |
| an MLflow server under a path prefix | tracking/test_sync.py |
| kill -9 of driver, worker, node, tracker | test_pipeline.py, faults/ |
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

import polars as pl
import pytest

from tests.checkout import SWEEP, Checkout

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PLACE = 'bücher & dépôt\'s "best" 2'
ODD = {"LANG": "C", "LC_ALL": "C", "OMP_NUM_THREADS": "8", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def checkouts(tmp_path_factory):
    """A worktree at an odd path in an odd environment, and a clone: both ran one trial, at the same time."""
    root = tmp_path_factory.mktemp("environments")
    main = Checkout(root / "main", git=True)
    main.params["sweep"] = {**SWEEP, "seeds": [0], "regularizers": [[]]}
    main.write("params.yaml", main.params)
    main.git("add", "--all")
    main.git("commit", "--quiet", "--message", "study")
    main.git("worktree", "add", "--quiet", "-b", "odd", str(root / PLACE))
    main.git("clone", "--quiet", ".", str(root / "clone"))
    worktree, clone = (Checkout.at(root / name, main.params) for name in (PLACE, "clone"))
    worktree.extra, clone.extra = ODD, {"OMP_NUM_THREADS": "1", "HOME": "/proc/none"}
    cpus = os.sched_getaffinity(0)
    other = clone.start("repro")
    os.sched_setaffinity(0, {min(cpus)})  # inherited by what this process starts
    try:
        first = worktree.dvc("exp", "run", "--name", "first")
    finally:
        os.sched_setaffinity(0, cpus)
    assert first.returncode == 0, first.stdout + first.stderr
    assert other.wait(timeout=600) == 0, (clone.folder / "dvc.log").read_text()
    return worktree, clone


def metrics_by_seed(checkout: Checkout) -> Mapping[int, Mapping[str, float]]:
    records = [json.loads(content) for content in checkout.records().values()]
    assert {record["status"] for record in records} == {"finished"}
    return {record["labels"]["seed"]: record["metrics"] for record in records}


def test_two_checkouts_at_once_give_the_same_bits_whatever_their_place_and_environment(checkouts):
    worktree, clone = checkouts
    assert metrics_by_seed(worktree).keys() == {0}
    assert metrics_by_seed(worktree) == metrics_by_seed(clone)
    for name in ("trials.parquet", "metrics.json"):
        assert (worktree.folder / "results" / name).is_file()


def test_an_added_seed_runs_alone_and_experiments_can_be_compared(checkouts):
    worktree, _ = checkouts
    before = worktree.records()
    done = worktree.dvc("exp", "run", "--name", "second", "--set-param", "sweep.seeds=[0,1]")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 planned, 1 done" in done.stdout
    assert before.items() <= worktree.records().items()
    assert metrics_by_seed(worktree).keys() == {0, 1}

    shown = worktree.dvc("exp", "show", "--csv")
    assert shown.returncode == 0, shown.stderr
    table = pl.read_csv(shown.stdout.encode())
    assert {"first", "second"} <= set(table["Experiment"].drop_nulls())
    assert "sweep.seeds" in table.columns

    diff = worktree.dvc("metrics", "diff", "--json")
    assert diff.returncode == 0, diff.stderr
    assert "metrics.json" in diff.stdout


def test_a_removed_seed_leaves_the_table_and_keeps_its_record(checkouts):
    worktree, _ = checkouts
    before = worktree.records()
    worktree.params["sweep"]["seeds"] = [1]
    worktree.write("params.yaml", worktree.params)
    done = worktree.dvc("repro", "sweep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 planned, 1 done" in done.stdout
    assert worktree.records() == before
    assert pl.read_parquet(worktree.folder / "results" / "trials.parquet")["seed"].to_list() == [1]
