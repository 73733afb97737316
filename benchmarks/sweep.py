"""What the sweep stage costs beside its trials, against plain loops of the same `run_trial` calls.

python -m benchmarks.sweep [--seconds 0 5 30] [--workers 1 2] [--trials 12]    overhead by the length of a trial
python -m benchmarks.sweep --asleep [--seconds 30] [--workers 2]               the same with trials that sleep
python -m benchmarks.sweep --counts 10 100 1000                                time and memory by the number of trials

Workers of one thread each against as many plain loops side by side, `--trials` for each of them, in fresh processes.
`loops` runs from the first call to the last one's end; `sweep` is all of `run_sweep`: plan, Ray's start, the workers'
imports, MLflow on SQLite, records, table. `start` is the part of it before the first trial and after the last.
Loops and sweep run in turns of a second, the other one stopped meanwhile; only the seconds of its own turns
count for each. With as many workers as cores what the driver, Ray and MLflow compute is taken from the trials, and what
a trial takes drifts with the machine. Trials that sleep need no turns and show what is added to them to the second;
`beside` is what all processes of the sweep compute meanwhile, in per cent of a core.
"""

from __future__ import annotations

import argparse
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

from benchmarks.turns import Group, in_turns
from dmlcore.config import SweepConfig, TrialConfig
from dmlcore.data.packed import PreparedDataset
from dmlcore.tracking import MlflowTracker, TrackerProcess
from dmlcore.training import run_trial
from dmlcore.training.evaluation import UtilityCurve
from dmlcore.training.run import EpochReport, TrialResult
from dmlcore.training.store import TrialStore
from dmlcore.tuning.cells import expand
from dmlcore.tuning.sweep import SweepFolders, run_sweep
from tests.small import small_dataset, small_trial
from tests.tuning.sweeps import sweep_config

EPOCHS = 5
RARELY = 10.0
"""Seconds between two looks at all processes, which take time themselves."""
PROBE = 400
"""Batches by which the speed of training is found."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, nargs="+", default=[0, 5, 30])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--trials", type=int, default=12, help="for each worker")
    parser.add_argument("--asleep", action="store_true")
    parser.add_argument("--counts", type=int, nargs="+", help="instead: numbers of trials that do nothing")
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
        elif arguments.asleep:
            asleep(Path(name), arguments.seconds, arguments.workers, arguments.trials)
        else:
            by_length(Path(name), arguments.seconds, arguments.workers, arguments.trials)


def by_length(folder: Path, lengths: list[float], counts: list[int], trials: int) -> None:
    """Print a row a length and number of workers that are reused and, for short trials, of new ones for each."""
    print(f"{trials} trials a worker; seconds")
    print("  a trial  workers            loops    sweep  start  overhead a trial  sweep / loops", flush=True)
    for length in lengths:
        batches = max(1, round(length / EPOCHS / seconds_a_batch(folder))) if length else 1
        train = {"epochs": EPOCHS if length else 1, "batches_per_epoch": batches}
        for workers in counts:
            settings = {"workers": workers, "trials": workers * trials, "train": train, "reuse": True}
            row(f"{workers} reused", *side_by_side(folder, settings), trials)
            if length < 30:
                new = settings | {"reuse": False}
                row(f"{workers} new each", *side_by_side(folder, new), trials)


def row(workers: str, loops: float, found: dict[str, Any], trials: int) -> None:
    """Print a row; the overhead of a trial is what its worker spent beside it, start and end of the sweep included."""
    spent, start = found["seconds"], found["seconds"] - found["busy"]
    print(
        f"{loops / trials:>9.2f}  {workers:<14} {loops:>9.1f} {spent:>8.1f} {start:>6.1f} "
        f"{(spent - loops) / trials:>17.2f} {spent / loops:>14.3f}",
        flush=True,
    )


def asleep(folder: Path, lengths: list[float], counts: list[int], trials: int) -> None:
    """Print a row a length and number of workers, reused."""
    print(f"{trials} trials a worker that sleep; seconds")
    print("  a trial  workers     loops    sweep  start  overhead a trial  sweep / loops  beside", flush=True)
    for length in lengths:
        for workers in counts:
            settings = {"workers": workers, "trials": workers * trials, "reuse": True}
            train = {"epochs": EPOCHS, "batches_per_epoch": 1}
            found = run_part("sweep", folder, settings | {"train": train, "sleep": length})
            loops, spent = length * trials, found["seconds"]
            start = spent - (found["last"] - found["first"])
            print(
                f"{length:>9.2f} {workers:>8} {loops:>9.1f} {spent:>8.1f} {start:>6.1f} "
                f"{(spent - loops) / trials:>17.2f} {spent / loops:>14.3f} {found['beside']:>6.1f}%",
                flush=True,
            )


def by_count(folder: Path, counts: list[int]) -> None:
    """Print a row a number of trials."""
    print(
        "trials that do nothing, 2 workers; MiB: resident memory when a tenth was done and at its largest later, of "
        "the driver and of the process that writes to MLflow"
    )
    print(" trials  seconds  seconds a trial  driver at 1/10  largest  writer at 1/10  largest", flush=True)
    for count in counts:
        train = {"epochs": 1, "batches_per_epoch": 1}
        found = run_part(
            "sweep", folder, {"workers": 2, "trials": count, "train": train, "sleep": 0.0, "reuse": True}
        )
        print(
            f"{count:>7} {found['seconds']:>8.1f} {found['seconds'] * 2 / count:>16.2f} "
            + " ".join(f"{mib:>{width}.0f}" for mib, width in zip(found["mib"], (15, 8, 15, 8), strict=True)),
            flush=True,
        )


def seconds_a_batch(folder: Path) -> float:
    """Of training, by two trials of different length."""
    times = []
    for batches in (1, PROBE):
        found = run_part("loop", folder, {"seeds": [0], "train": {"epochs": 1, "batches_per_epoch": batches}})
        times.append(found["seconds"])
    return (times[1] - times[0]) / (PROBE - 1)


def side_by_side(folder: Path, settings: dict[str, Any]) -> tuple[float, dict[str, float]]:
    """Seconds of the longest of the plain loops, and of the sweep and its busy part; see `benchmarks.turns`."""
    workers = settings["workers"]
    shares = [list(range(worker, settings["trials"], workers)) for worker in range(workers)]
    loops = Group(start_part("loop", folder, settings | {"seeds": seeds}) for seeds in shares)
    sweep = Group([start_part("sweep", folder, settings)])
    in_turns([loops, sweep])
    of_loops = [result(process) for process in loops.processes]
    (of_sweep,) = [result(process) for process in sweep.processes]
    spent = {
        "seconds": sweep.at(of_sweep["ended"]) - sweep.at(of_sweep["started"]),
        "busy": sweep.at(of_sweep["last"]) - sweep.at(of_sweep["first"]),
    }
    first = min(loops.at(found["started"]) for found in of_loops)
    return max(loops.at(found["ended"]) for found in of_loops) - first, spent


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
            with TrackerProcess(tracker, folders.state) as aside:
                plan = run_sweep(config, folders, aside, run)
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
        "beside": watch.beside,
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
        return TrialResult(
            {"test/map_at_r": 0.5}, [], UtilityCurve([0.0, 1.0], [0.5] * 2, [0.4] * 2, [0.6] * 2)
        )


class Watch:
    """Resident memory while records appear, and what this process and those that it started compute."""

    def __init__(self, records: Path, trials: int) -> None:
        self.records, self.trials = records, trials
        self.early = self.largest = (0, 0)
        """Bytes: of this process, of the one that writes to MLflow."""
        self.beside = 0.0
        """Per cent of a core, from the first record on."""
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
                self.beside = 100 * (spent - began[1]) / max(now - began[0], 1.0)
            if done <= max(1, self.trials // 10):
                self.early = resident
            elif done < self.trials:  # what the table of all trials takes afterwards is not the sweep's
                self.largest = max(self.largest[0], resident[0]), max(self.largest[1], resident[1])


def writers_memory(process: psutil.Process) -> int:
    """Resident bytes of the process that writes to MLflow."""
    for child in process.children():
        with suppress(psutil.NoSuchProcess):
            if "dmlcore.tracking.aside_process" in child.cmdline():
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
    main()
