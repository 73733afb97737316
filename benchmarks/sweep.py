"""What the sweep stage costs in addition to its trials, against plain loops of the same `run_trial` calls.

python -m benchmarks.sweep [--seconds 0 5 30] [--workers 1 2] [--trials 12]    overhead by the length of a trial
python -m benchmarks.sweep --asleep [--seconds 30] [--workers 2]               the same with trials that sleep
python -m benchmarks.sweep --counts 10 100 1000                                time and memory by the number of trials

Workers of one thread each against as many concurrent plain loops, `--trials` for each of them, in fresh processes.
`loops` runs from the first call to the last one's end; `sweep` is all of `run_sweep`: plan, Ray's start, the workers'
imports, MLflow on SQLite, records, table. `start` is the part of it before the first trial and after the last.
Loops and sweep run in turns of a second, the other one stopped meanwhile; only the seconds of its own turns
count for each. With as many workers as cores what the driver, Ray and MLflow compute is taken from the trials, and what
a trial takes drifts with the machine. Trials that sleep need no turns and show what is added to them to the second;
`extra CPU` is what all processes of the sweep compute meanwhile, in per cent of a core.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.sweep_parts import EPOCHS, result, run_part, start_part
from benchmarks.turns import Group, in_turns
from tests.small import small_dataset

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
    arguments = parser.parse_args()
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
    """Print a row; the overhead of a trial is its worker's other time, start and end of the sweep included."""
    spent, start = found["seconds"], found["seconds"] - found["busy"]
    print(
        f"{loops / trials:>9.2f}  {workers:<14} {loops:>9.1f} {spent:>8.1f} {start:>6.1f} "
        f"{(spent - loops) / trials:>17.2f} {spent / loops:>14.3f}",
        flush=True,
    )


def asleep(folder: Path, lengths: list[float], counts: list[int], trials: int) -> None:
    """Print a row a length and number of workers, reused."""
    print(f"{trials} trials a worker that sleep; seconds")
    print(
        "  a trial  workers     loops    sweep  start  overhead a trial  sweep / loops  extra CPU", flush=True
    )
    for length in lengths:
        for workers in counts:
            settings = {"workers": workers, "trials": workers * trials, "reuse": True}
            train = {"epochs": EPOCHS, "batches_per_epoch": 1}
            found = run_part("sweep", folder, settings | {"train": train, "sleep": length})
            loops, spent = length * trials, found["seconds"]
            start = spent - (found["last"] - found["first"])
            print(
                f"{length:>9.2f} {workers:>8} {loops:>9.1f} {spent:>8.1f} {start:>6.1f} "
                f"{(spent - loops) / trials:>17.2f} {spent / loops:>14.3f} {found['extra_cpu']:>9.1f}%",
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


if __name__ == "__main__":
    main()
