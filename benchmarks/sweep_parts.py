"""What `benchmarks.sweep` measures, each in a fresh process: a plain loop of `run_trial`, and a sweep.

python -m benchmarks.sweep_parts loop|sweep FOLDER SETTINGS     the settings as JSON; prints what was found as JSON
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from dmlcore.config.sweep import SweepConfig
from dmlcore.config.trial import TrialConfig
from dmlcore.data.dataset import PreparedDataset
from dmlcore.sweep.grid import expand
from dmlcore.sweep.run import SweepFolders, run_sweep
from dmlcore.tracking import BackgroundTracker, MlflowTracker
from dmlcore.training import run_trial
from dmlcore.training.checkpoint import EpochReport
from dmlcore.training.run import TrialResult
from dmlcore.training.store import TrialStore
from tests.small import small_trial
from tests.sweep.sweeps import sweep_config

EPOCHS = 5
RARELY = 10.0
"""Seconds between two looks at all processes, which take time themselves."""


def start_part(what: str, folder: Path, settings: dict[str, Any]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.sweep_parts", what, str(folder), json.dumps(settings)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a part of the benchmark ended with {process.returncode}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def run_part(what: str, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    return result(start_part(what, folder, settings))


def loop_part(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    data = PreparedDataset.open(folder / "prepared" / "small")
    with tempfile.TemporaryDirectory() as storage:
        started = time.time()
        for seed in settings["seeds"]:
            config: TrialConfig = small_trial(train=settings["train"], seed=seed)
            run_trial(config, data, store=TrialStore(Path(storage) / str(seed)), report=lambda report: None)
        ended = time.time()
    return {"started": started, "ended": ended, "seconds": ended - started}


def sweep_part(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    config: SweepConfig = sweep_config(
        regularizers=[[]],
        seeds=list(range(settings["trials"])),
        losses={"ms": {"loss": {"name": "multi_similarity"}, "train": settings["train"]}},
        resources={"max_concurrent": settings["workers"], "reuse_workers": settings["reuse"]},
    )
    assert len(expand(config)) == settings["trials"]
    with tempfile.TemporaryDirectory() as name:
        folders = SweepFolders(Path(name) / "study", folder / "prepared")
        tracker = MlflowTracker.for_study("benchmark", folders.state, None)
        run = Sleeper(settings["sleep"]) if "sleep" in settings else run_trial
        with Watch(folders.records, settings["trials"]) as watch:
            started = time.time()
            with BackgroundTracker(tracker, folders.state) as background:
                plan = run_sweep(config, folders, background, run)
            ended = time.time()
        if plan.missing:
            raise RuntimeError(f"{len(plan.missing)} trials failed")
        ends = {path.stem: path.stat().st_mtime for path in folders.records.glob("*.json")}
        first = min(end - plan.records[key].seconds for key, end in ends.items())
    return {
        "started": started,
        "first": first,
        "last": max(ends.values()),
        "ended": ended,
        "seconds": ended - started,
        "mib": [value / 2**20 for pair in zip(watch.early, watch.largest, strict=True) for value in pair],
        "extra_cpu": watch.extra_cpu,
    }


@dataclass(frozen=True)
class Sleeper:
    """In place of `run_trial`: epochs that sleep, each reported with as many metrics as a real one."""

    seconds: float

    def __call__(
        self, config: Any, data: Any, *, report: Callable[[EpochReport], None], **rest: Any
    ) -> TrialResult:
        for epoch in range(EPOCHS):
            time.sleep(self.seconds / EPOCHS)
            report(EpochReport(epoch, {f"validation/metric_{number}": 0.5 for number in range(27)}))
        utility = {"thresholds": [0.0, 1.0], "mean": [0.5] * 2, "low": [0.4] * 2, "high": [0.6] * 2}
        return TrialResult({"test/map_at_r": 0.5}, [], utility)


class Watch:
    """Resident memory while records appear, and what this process and those that it started compute."""

    def __init__(self, records: Path, trials: int) -> None:
        self.records, self.trials = records, trials
        self.early = self.largest = (0, 0)
        """Bytes: of this process, of the one that writes to MLflow."""
        self.extra_cpu = float("nan")
        """Per cent of a core, from the first record on; known after two looks."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        process = psutil.Process()
        began: tuple[float, float] | None = None
        asked = -RARELY
        while not self._ended.wait(0.5):
            done = len(list(self.records.glob("*.json")))
            resident, now = (process.memory_info().rss, writers_memory(process)), time.monotonic()
            if 0 < done < self.trials and now - asked > RARELY:
                asked, spent = now, computed(process)
                began = began or (now, spent)
                self.extra_cpu = 100 * (spent - began[1]) / max(now - began[0], 1.0)
            if done <= max(1, self.trials // 10):
                self.early = resident
            elif done < self.trials:  # what the table of all trials takes afterwards is not the sweep's
                self.largest = max(self.largest[0], resident[0]), max(self.largest[1], resident[1])


def writers_memory(process: psutil.Process) -> int:
    """Resident bytes of the process that writes to MLflow."""
    for child in process.children():
        with suppress(psutil.NoSuchProcess):
            if any("dmlcore.tracking.background" in argument for argument in child.cmdline()):
                return int(child.memory_info().rss)
    return 0


def computed(process: psutil.Process) -> float:
    """Processor seconds of a process and all that it started and that still run."""
    spent = 0.0
    for each in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            spent += sum(each.cpu_times()[:2])
    return spent


PARTS = {"loop": loop_part, "sweep": sweep_part}


if __name__ == "__main__":
    part, where, how = sys.argv[1:]
    print(json.dumps(PARTS[part](Path(where), json.loads(how))))
