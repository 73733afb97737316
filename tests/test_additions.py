"""The table "to add ..." of docs/architecture.md: each addition is made in a copy, in so many files, and works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars
import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
PARTS = ("dmlcore", "pipeline", "tests", "data", "dvc.yaml", "params.yaml", "pyproject.toml", "results")
PREPARED = ("raw", "prepared", "cache")

LOSS = '''
"""Attraction: the mean distance of positives."""

from __future__ import annotations

import torch
from torch import Tensor

from dmlcore.losses.base import MetricLoss, check_number, normalize


class Attraction(MetricLoss):
    """Mean of (1 - s) ** power over the positive pairs."""

    def __init__(self, power: float = 1.0) -> None:
        super().__init__()
        self.power = check_number("attraction.power", power, low=1)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        x = normalize(embeddings)
        positive = (labels[:, None] == labels).triu(1)
        gaps = (1 - x @ x.T).clamp(min=0) ** self.power
        return (gaps * positive).sum() / positive.sum().clamp(min=1)
'''
LOSS_REFERENCE = """
def attraction(x: Tensor, labels: Labels, power=1.0) -> Tensor:
    return mean([(1 - cosine(x[i], x[j])) ** power for i, j in all_pairs(labels, positives)], x)


CASES = {
    "attraction": Case(attraction, [{}, {"power": 2.0}], needs_positive=True),
"""
STAGE = """
  count:
    cmd: python pipeline/count.py
    deps:
      - dmlcore/counting.py
      - pipeline/count.py
      - results/trials.parquet
    outs:
      - results/count.txt
"""
STAGE_SCRIPT = """
from pathlib import Path

from dmlcore.counting import count_trials

Path("results/count.txt").write_text(str(count_trials(Path("results/trials.parquet"))))
"""
COUNTING = '''
"""How many trials a table has."""

from pathlib import Path

import polars


def count_trials(table: Path) -> int:
    return len(polars.read_parquet(table))
'''
TRACKER = '''
"""A tracker that writes a line per ended trial."""

from dmlcore.tracking.base import Tracker


class LineTracker(Tracker):
    def __init__(self, path):
        self.path = path

    @classmethod
    def for_study(cls, study, state, repository):
        return cls(state / f"{study}.txt")

    def finish(self, record, name):
        with self.path.open("a") as lines:
            lines.write(f"{name}: {record.status}\\n")
'''
TRACKER_USE = """
from tests.memory_tracker import MemoryTracker
from dmlcore.sweep.run import SweepFolders
from dmlcore.tracking import tracker_class
from tests.sweep.sweeps import run_here, sweep_config


def test_each_trial_has_a_line(tmp_path, small_data):
    config = sweep_config(tracker="lines")
    folders = SweepFolders(tmp_path / "study", small_data.folder.parent)
    folders.state.mkdir(parents=True)
    records = run_here(config, folders, tracker_class(config.tracker).for_study("s", folders.state, None))
    lines = (folders.state / "s.txt").read_text().splitlines()
    assert [line.split(": ")[1] for line in lines] == ["finished"] * len(records) and len(records) == 2
"""
SCHEDULER = '''
class FloorStopping(EarlyStopping):
    """Stop what is below a fixed value."""

    def pruner(self) -> BasePruner:
        return optuna.pruners.ThresholdPruner(lower=0.2, n_warmup_steps=self.config.grace_epochs)

    def reason(self, epoch: int, value: float) -> str:
        return f"stopped early at epoch {epoch}: validation MAP@R {value:.4f} is below the floor"


SCHEDULERS: dict[str, type[EarlyStopping]] = {"asha": ASHAPruner, "floor": FloorStopping}
'''
SCHEDULER_USE = """
from dmlcore.config.base import parse
from dmlcore.config.search import StopEarlyConfig
from dmlcore.sweep.search.early_stopping import SCHEDULERS
from tests.sweep.search.test_early_stopping import run, trial


def test_the_weakest_is_stopped():
    config = parse(StopEarlyConfig, {"scheduler": "floor", "grace_epochs": 1}, "params.yaml")
    scheduler = SCHEDULERS[config.scheduler](config)
    ends = [run(scheduler, trial(n), [level] * 21) for n, level in enumerate((0.5, 0.6, 0.7, 0.1, 0.9))]
    assert [len(curve) for curve, _ in ends] == [21, 21, 21, 2, 21]
    assert "floor" in ends[3][1]
"""


@pytest.fixture
def project(tmp_path):
    """A copy of the code with what Python and numba compiled, without what its stages made."""
    folder = tmp_path / "project"
    folder.mkdir()
    for part in PARTS:
        source, target = ROOT / part, folder / part
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(*PREPARED))
        else:
            shutil.copy(source, target)
    return folder


def add(project: Path, edits: dict[str, str | tuple[str, str]]) -> None:
    """Make the edits: a new file's text, or (what stands in the file once, what it becomes)."""
    for name, edit in edits.items():
        path = project / name
        if isinstance(edit, str):
            assert not path.exists()
            path.write_text(edit.lstrip("\n"))
        else:
            text = path.read_text()
            assert text.count(edit[0]) == 1, (name, edit[0])
            path.write_text(text.replace(edit[0], edit[1].lstrip("\n")))


def run(project: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(project), "DVC_NO_ANALYTICS": "1"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        env=environment | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def passed(project: Path, *arguments: str) -> int:
    """Run tests of the copy; return how many passed, none failed."""
    output = run(project, "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *arguments)
    return int(output.rsplit(" passed", 1)[0].rsplit(maxsplit=1)[-1])


def test_a_loss_takes_three_files(project):
    edits = {
        "dmlcore/losses/attraction.py": LOSS,
        "tests/reference/pair_losses.py": ("CASES = {\n", LOSS_REFERENCE),
    }
    registry = (project / "dmlcore/losses/__init__.py").read_text()
    line = "LOSSES: dict[str, type[nn.Module]] = {\n"
    added = f"from dmlcore.losses.attraction import Attraction\n\n{line}" + '    "attraction": Attraction,\n'
    edits["dmlcore/losses/__init__.py"] = (line, added)
    assert line in registry
    assert len(edits) == 3
    add(project, edits)
    assert passed(project, "tests/losses", "-k", "attraction or nothing_lacks") >= 15


def test_a_metric_takes_three_files(project):
    edits = {
        "dmlcore/metrics/class_scores.py": (
            '        "opis_floor": raw - corrected,\n',
            '        "opis_floor": raw - corrected,\n'
            '        "lowest_utility": float(consistency.range_mean(utility).min()),\n',
        ),
        "dmlcore/analysis/metric_labels.py": (
            '    "recall_at_1": Metric("R@1"),\n',
            '    "recall_at_1": Metric("R@1"),\n    "lowest_utility": Metric("Lowest utility"),\n',
        ),
        "tests/reference/metrics.py": (
            '        "distance_min": oracle.threshold(0.01),\n',
            '        "lowest_utility": min(mean_utility(row[None], thresholds) for row in utility),\n'
            '        "distance_min": oracle.threshold(0.01),\n',
        ),
    }
    assert len(edits) == 3
    add(project, edits)
    # Against the slow loop, whose names must be those of `evaluate`. What METRICS has is in every output: that is
    # tests/analysis/test_columns.py, which must not mind a metric that older results lack.
    assert passed(project, "tests/metrics/test_against_reference.py") >= 7
    assert passed(project, "tests/analysis/test_columns.py", "-k", "new_metric") == 1


def test_a_stage_takes_three_files(project):
    edits = {
        "dvc.yaml": ("stages:\n", "stages:\n" + STAGE.lstrip("\n")),
        "pipeline/count.py": STAGE_SCRIPT,
        "dmlcore/counting.py": COUNTING,
    }
    assert len(edits) == 3
    add(project, edits)
    run(project, "dvc", "init", "--no-scm", "--quiet")
    assert "Running stage 'count'" in run(project, "dvc", "repro", "--single-item", "count")
    assert (project / "results/count.txt").read_text() == str(
        len(polars.read_parquet(project / "results/trials.parquet"))
    )
    assert "didn't change" in run(project, "dvc", "repro", "--single-item", "count")


def test_a_tracker_takes_two_files(project):
    edits = {
        "dmlcore/tracking/lines.py": TRACKER,
        "dmlcore/config/sweep.py": (
            '    "none": "dmlcore.tracking.base:Tracker",\n',
            '    "none": "dmlcore.tracking.base:Tracker",\n    "lines": "dmlcore.tracking.lines:LineTracker",\n',
        ),
    }
    assert len(edits) == 2
    add(project, edits)
    (project / "tests/sweep/test_lines.py").write_text(TRACKER_USE)
    passed(project, "tests/sweep/test_lines.py")
    registry = (project / "tests/tracking/test_registry.py").read_text()
    assert '"none"}' in registry  # the one line of a test that names them all
    assert passed(project, "tests/tracking/test_registry.py", "-k", "LineTracker") >= 7


def test_a_scheduler_takes_two_files(project):
    edits = {
        "dmlcore/sweep/search/early_stopping.py": (
            'SCHEDULERS: dict[str, type[EarlyStopping]] = {"asha": ASHAPruner}\n',
            SCHEDULER,
        ),
        "dmlcore/config/search.py": ('scheduler: Literal["asha"]', 'scheduler: Literal["asha", "floor"]'),
    }
    assert len(edits) == 2
    add(project, edits)
    (project / "tests/sweep/search/test_floor.py").write_text(SCHEDULER_USE)
    assert passed(project, "tests/sweep/search/test_floor.py") == 1
