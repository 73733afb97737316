"""How trials that only sleep spread over 1 to 4 Ray nodes: separate raylets on this machine, one CPU each.

python -m benchmarks.nodes [--nodes 1 2 4] [--trials 40] [--seconds 5]

efficiency: (trials x seconds / nodes) / time; `whole` from the call of the sweep to its return, `trials` from the first
one's start to the last one's end.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from dmlcore.config.sweep import ClusterConfig
from dmlcore.records import RecordFolder
from dmlcore.sweep.execution.worker import WorkerContext
from dmlcore.sweep.planning import make_plan
from dmlcore.sweep.ray.tune import run_trials
from dmlcore.training.checkpoint import EpochReport
from dmlcore.training.run import TrialResult
from tests.memory_tracker import MemoryTracker
from tests.small import small_dataset
from tests.sweep.sweeps import sweep_config

SECONDS = "BENCHMARK_SECONDS"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    os.environ[SECONDS] = str(arguments.seconds)
    print(f"{arguments.trials} trials that sleep {arguments.seconds:g} s")
    print("nodes  whole s  efficiency  trials s  efficiency", flush=True)
    for nodes in arguments.nodes:
        whole, trials = measure(nodes, arguments.trials)
        ideal = arguments.trials * arguments.seconds / nodes
        print(
            f"{nodes:>5} {whole:>8.1f} {ideal / whole:>11.2f} {trials:>9.1f} {ideal / trials:>11.2f}",
            flush=True,
        )


def measure(nodes: int, trials: int) -> tuple[float, float]:
    """Seconds of the sweep on so many nodes, and of its trials."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small_dataset(folder / "prepared" / "small")
        config = sweep_config(regularizers=[[]], seeds=list(range(trials)), attempts=1)
        plan = make_plan(config, study=folder / "study", prepared=folder / "prepared")
        context = WorkerContext(folder / "state", 0.0, run=asleep)
        context.records.mkdir(parents=True)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        try:
            for _ in range(nodes - 1):
                cluster.add_node(num_cpus=1)
            started = time.time()
            with redirect_stdout(StringIO()):
                here = ClusterConfig(address=cluster.address)
                run_trials(plan.trials, config.model_copy(update={"cluster": here}), context, MemoryTracker())
            whole = time.time() - started
        finally:
            cluster.shutdown()
        records = RecordFolder(context.records).all()
        assert [record.status for record in records] == ["finished"] * trials
        ends = {path.stem: path.stat().st_mtime for path in context.records.glob("*.json")}
        first = min(ends[record.trial_key] - record.seconds for record in records)
        return whole, max(ends.values()) - first


def asleep(config: Any, data: Any, *, report: Callable[[EpochReport], None], **rest: Any) -> TrialResult:
    """In context of `run_trial`: an epoch that sleeps."""
    time.sleep(float(os.environ[SECONDS]))
    report(EpochReport(1, {"validation/map_at_r": 0.5}))
    return TrialResult({}, [], {})


if __name__ == "__main__":
    main()
