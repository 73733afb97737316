"""Epochs logged to MLflow on SQLite by 1, 2 and 8 processes at once: a batch an epoch, as the tracker does it, against
a call a metric.

python -m benchmarks.tracking [--writers 1 2 8] [--epochs 40]
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dmlcore.tracking import MlflowTracker

METRICS = 27
"""Of an epoch of a real trial."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--epochs", type=int, default=40)
    arguments = parser.parse_args()
    print(f"{arguments.epochs} epochs of {METRICS} metrics a writer; metrics a second, slowest epoch in ms")
    print("writers  batches  slowest  single calls  slowest  batches / single", flush=True)
    for writers in arguments.writers:
        batches, slow_batch = measure(in_batches, writers, arguments.epochs)
        single, slow_single = measure(one_by_one, writers, arguments.epochs)
        print(
            f"{writers:>7} {batches:>8.0f} {slow_batch * 1e3:>8.0f} {single:>13.0f} {slow_single * 1e3:>8.0f} "
            f"{batches / single:>17.1f}",
            flush=True,
        )


def measure(write: Callable[..., list[float]], writers: int, epochs: int) -> tuple[float, float]:
    """Metrics a second of all writers together, and the seconds of the slowest epoch."""
    with tempfile.TemporaryDirectory() as name:
        tracker = MlflowTracker.for_study("benchmark", Path(name), None)
        tracker.prepare()
        with multiprocessing.get_context("spawn").Pool(writers) as pool:
            pool.starmap(write, [(tracker, f"warm {writer}", 2) for writer in range(writers)], chunksize=1)
            started = time.perf_counter()
            found = pool.starmap(
                write, [(tracker, f"trial {writer}", epochs) for writer in range(writers)], chunksize=1
            )
            seconds = time.perf_counter() - started
    return writers * epochs * METRICS / seconds, max(max(times) for times in found)


def in_batches(tracker: MlflowTracker, key: str, epochs: int) -> list[float]:
    """Seconds of each epoch, by the tracker."""
    tracker.start(key, key, {}, {})
    return [timed(lambda epoch=epoch: tracker.epoch(key, epoch, values(epoch))) for epoch in range(epochs)]


def one_by_one(tracker: MlflowTracker, key: str, epochs: int) -> list[float]:
    """Seconds of each epoch, a call a metric."""
    run = tracker.runs.client.create_run(tracker.runs.experiment_id)

    def log(epoch: int) -> None:
        for name, value in values(epoch).items():
            tracker.runs.client.log_metric(run.info.run_id, name, value, step=epoch)

    return [timed(lambda epoch=epoch: log(epoch)) for epoch in range(epochs)]


def values(epoch: int) -> dict[str, float]:
    return {"validation/map_at_r": 0.1} | {f"metric_{number}": epoch / 7 for number in range(METRICS - 1)}


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
