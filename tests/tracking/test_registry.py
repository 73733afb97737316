"""The trackers by name: each fits the sweep, an unknown name is refused, and the driver stays light."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from dmlcore.config.base import ConfigError, parse
from dmlcore.config.sweep import TRACKERS, SweepConfig
from dmlcore.records import TrialRecord
from dmlcore.tracking import BackgroundTracker, Tracker, tracker_class
from tests.memory_tracker import MemoryTracker

METHODS = [name for name, value in vars(Tracker).items() if inspect.isfunction(value)]
SWEEP = {"study": "s", "datasets": ["d"], "backbones": {"b": {}}, "losses": {"l": {}}}


def test_every_name_in_the_config_is_a_tracker():
    assert set(TRACKERS) == {"mlflow", "none"}
    assert all(issubclass(tracker_class(name), Tracker) for name in TRACKERS)
    assert parse(SweepConfig, SWEEP, "params").tracker == "mlflow"


def test_an_unknown_tracker_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"`tracker`.*must be one of mlflow, none; got 'wandb'"):
        parse(SweepConfig, SWEEP | {"tracker": "wandb"}, "sweep")


@pytest.mark.parametrize("tracker", [*map(tracker_class, TRACKERS), BackgroundTracker, MemoryTracker])
@pytest.mark.parametrize("method", METHODS)
def test_every_tracker_takes_what_the_sweep_passes(tracker, method):
    expected = inspect.signature(getattr(Tracker, method)).parameters
    assert list(inspect.signature(getattr(tracker, method)).parameters) == list(expected)


def test_the_tracker_none_takes_everything_and_writes_nothing(tmp_path):
    tracker = tracker_class("none").for_study("s", tmp_path, None)
    record = TrialRecord(trial_key="k", train_key="k", eval_key="k", status="finished", config={})
    with tracker.running(tmp_path) as running:
        running.prepare()
        running.start("k", "a name", {}, {})
        running.epoch("k", 0, {})
        running.finish(record, "a name")
        assert running.sync([record]) == 0
    assert tracker.log_models([record], tmp_path, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_driver_loads_neither_mlflow_nor_matplotlib_to_send_its_calls(tmp_path):
    code = (
        "import sys; from pathlib import Path; from dmlcore.tracking import tracker_class;"
        f"folder = Path({str(tmp_path)!r});"
        "tracker = tracker_class('mlflow').for_study('s', folder, None)\n"
        "with tracker.running(folder) as running: running.epoch('k', 0, {})\n"
        "print([name for name in ('mlflow', 'matplotlib', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stderr
    assert "RuntimeWarning" not in done.stderr
