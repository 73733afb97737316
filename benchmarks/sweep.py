"""What the sweep stage costs beside its trials, against plain loops of the same `run_trial` calls.

python -m benchmarks.sweep [--seconds 0 5 30] [--trials 24]    overhead by the length of a trial
python -m benchmarks.sweep --counts 10 100 1000                time and memory by the number of trials of 0 s

Two workers of one thread each against two plain loops side by side, each with half the trials, both in fresh processes.
`loops` runs from the first call to the last one's end; `sweep` is all of `run_sweep`: plan, Ray's start, the workers'
imports, MLflow on SQLite, records, table. `start` is the part of it before the first trial and after the last.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from dmlcore.config import SweepConfig, TrialConfig
from dmlcore.data.packed import PreparedDataset
from dmlcore.tracking import MlflowTracker
from dmlcore.training import run_trial
from dmlcore.training.store import TrialStore
from dmlcore.tuning.cells import expand
from dmlcore.tuning.sweep import SweepFolders, run_sweep
from tests.small import small_dataset, small_trial
from tests.tuning.sweeps import sweep_config

WORKERS = 2
EPOCHS = 5
PROBE = 400
"""Batches by which the speed of training is found."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, nargs="+", default=[0, 5, 30])
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--counts", type=int, nargs="+", help="instead: numbers of trials of 0 s")
    parser.add_argument("--part", nargs=3, metavar=("WHAT", "FOLDER", "SETTINGS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        what, folder, settings = arguments.part
        print(json.dumps(PARTS[what](Path(folder), json.loads(settings))))
        return
    with tempfile.TemporaryDirectory() as name:
        small_dataset(Path(name) / "prepared" / "small")
        if arguments.counts:
            by_count(Path(name), arguments.counts)
        else:
            by_length(Path(name), arguments.seconds, arguments.trials)


def by_length(folder: Path, lengths: list[float], trials: int) -> None:
    """Print a row a length, with workers that are reused and, for short trials, with a new one for each."""
    print(f"{trials} trials, {WORKERS} workers; seconds")
    print("  a trial   workers    loops    sweep  start  overhead a trial  sweep / loops", flush=True)
    for length in lengths:
        batches = max(1, round(length / EPOCHS / seconds_a_batch(folder))) if length else 1
        train = {"epochs": EPOCHS if length else 1, "batches_per_epoch": batches}
        settings = {"trials": trials, "train": train, "reuse": True}
        loops = run_loops(folder, settings)
        row("reused", loops, run_part("sweep", folder, settings), trials)
        if length < 30:
            row("new each", loops, run_part("sweep", folder, settings | {"reuse": False}), trials)


def row(workers: str, loops: float, found: dict[str, Any], trials: int) -> None:
    """Print a row; the overhead of a trial is what the workers spent beside it, start and end of the sweep included."""
    spent, start = found["seconds"], found["seconds"] - found["busy"]
    overhead = (spent - loops) * WORKERS / trials
    print(
        f"{loops * WORKERS / trials:>9.2f} {workers:>9} {loops:>8.1f} {spent:>8.1f} {start:>6.1f} {overhead:>17.2f} "
        f"{spent / loops:>14.3f}",
        flush=True,
    )


def by_count(folder: Path, counts: list[int]) -> None:
    """Print a row a number of trials."""
    print(
        "trials of 0 s, 2 workers; MiB: resident memory of the driver when a tenth was done and at its largest later"
    )
    print(" trials  seconds  seconds a trial  MiB at 1/10  largest MiB", flush=True)
    for count in counts:
        train = {"epochs": 1, "batches_per_epoch": 1}
        found = run_part("sweep", folder, {"trials": count, "train": train, "reuse": True})
        print(
            f"{count:>7} {found['seconds']:>8.1f} {found['seconds'] * WORKERS / count:>16.2f} "
            f"{found['early_mib']:>12.0f} {found['largest_mib']:>12.0f}",
            flush=True,
        )


def seconds_a_batch(folder: Path) -> float:
    """Of training, by two trials of different length."""
    times = []
    for batches in (1, PROBE):
        found = run_part("loop", folder, {"seeds": [0], "train": {"epochs": 1, "batches_per_epoch": batches}})
        times.append(found["seconds"])
    return (times[1] - times[0]) / (PROBE - 1)


def run_loops(folder: Path, settings: dict[str, Any]) -> float:
    """Seconds of the longest of the plain loops side by side."""
    shares = [list(range(worker, settings["trials"], WORKERS)) for worker in range(WORKERS)]
    processes = [start_part("loop", folder, settings | {"seeds": seeds}) for seeds in shares]
    return max(result(process)["seconds"] for process in processes)


def start_part(what: str, folder: Path, settings: dict[str, Any]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.sweep", "--part", what, str(folder), json.dumps(settings)]
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
        started = time.perf_counter()
        for seed in settings["seeds"]:
            config: TrialConfig = small_trial(train=settings["train"], seed=seed)
            run_trial(config, data, store=TrialStore(Path(storage) / str(seed)), report=lambda report: None)
        return {"seconds": time.perf_counter() - started}


def sweep_part(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    config: SweepConfig = sweep_config(
        regularizers=[[]],
        seeds=list(range(settings["trials"])),
        losses={"ms": {"loss": {"name": "multi_similarity"}, "train": settings["train"]}},
        resources={"max_concurrent": WORKERS, "reuse_workers": settings["reuse"]},
    )
    assert len(expand(config)) == settings["trials"]
    with tempfile.TemporaryDirectory() as name:
        folders = SweepFolders(Path(name) / "study", folder / "prepared")
        tracker = MlflowTracker.for_study("benchmark", folders.state, None)
        with Watch(folders.records, settings["trials"]) as watch:
            started = time.time()
            plan = run_sweep(config, folders, tracker)
            ended = time.time()
        if plan.missing:
            raise RuntimeError(f"{len(plan.missing)} trials failed")
        ends = {path.stem: path.stat().st_mtime for path in folders.records.glob("*.json")}
        first = min(end - plan.records[key].seconds for key, end in ends.items())
    return {
        "seconds": ended - started,
        "busy": max(ends.values()) - first,
        "early_mib": watch.early / 2**20,
        "largest_mib": watch.largest / 2**20,
    }


class Watch:
    """Resident memory of this process while records appear."""

    def __init__(self, records: Path, trials: int) -> None:
        self.records, self.trials = records, trials
        self.early = self.largest = 0
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
        while not self._ended.wait(0.5):
            done = len(list(self.records.glob("*.json")))
            resident = process.memory_info().rss
            if done <= max(1, self.trials // 10):
                self.early = resident
            elif done < self.trials:  # what the table of all trials takes afterwards is not the sweep's
                self.largest = max(self.largest, resident)


PARTS = {"loop": loop_part, "sweep": sweep_part}


if __name__ == "__main__":
    main()
