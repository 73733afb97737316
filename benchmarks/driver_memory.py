"""Memory of a sweep's driver by the number of trials that have ended: short sleeping trials over four raylets.

python -m benchmarks.driver_memory [--trials 1000] [--seconds 0.5]

`resident`: of the driver's process, with pages that it shares; `own`: its private pages; `writer`: resident, of the
process that writes to MLflow. Trials report five epochs of 27 metrics each.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.chaos_targets import Driver, Nodes, wait_for
from benchmarks.sweep_parts import Sleeper, writers_memory
from dmlcore.sweep.run import SweepFolders, run_sweep
from dmlcore.tracking import BackgroundTracker, MlflowTracker
from tests.small import small_dataset
from tests.sweep.sweeps import sweep_config

SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a trial")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        folder = Path(name)
        small_dataset(folder / "prepared" / "small")
        settings = {"trials": arguments.trials, "seconds": arguments.seconds}
        (folder / "settings.json").write_text(json.dumps(settings))
        nodes = Nodes(folder, cpus=2)
        driver = Driver("benchmarks.driver_memory", folder, nodes.address)
        try:
            measure(folder, driver, arguments.trials)
        finally:
            driver.kill()
            nodes.shutdown()


def measure(folder: Path, driver: Driver, trials: int) -> None:
    """Print a row at each share of the trials."""
    driver.start()
    began, records = time.monotonic(), folder / "study" / "state" / "records"
    print("MiB\n trials  seconds  resident    own  writer", flush=True)
    for count in sorted({max(1, round(share * trials)) for share in SHARES}):
        wait_for(lambda: len(list(records.glob("*.json"))) >= count or driver.is_over())  # noqa: B023
        assert driver.process is not None
        process = psutil.Process(driver.process.pid)
        memory, writer = process.memory_full_info(), writers_memory(process)
        print(
            f"{count:>7} {time.monotonic() - began:>8.0f} {memory.rss / 2**20:>9.0f} {memory.uss / 2**20:>6.0f} "
            f"{writer / 2**20:>7.0f}",
            flush=True,
        )
    wait_for(driver.is_over)
    print(f"the driver ended with {driver.process.returncode if driver.process else None}")


def drive(folder: Path, address: str) -> None:
    """Run the sweep."""
    settings = json.loads((folder / "settings.json").read_text())
    config = sweep_config(
        study="memory", regularizers=[[]], seeds=list(range(settings["trials"])), cluster={"address": address}
    )
    folders = SweepFolders(folder / "study", folder / "prepared")
    tracker = MlflowTracker.for_study("memory", folders.state, None)
    with BackgroundTracker(tracker, folders.state) as background:
        plan = run_sweep(config, folders, background, Sleeper(settings["seconds"]))
    sys.exit(1 if plan.missing else 0)


if __name__ == "__main__":
    if len(sys.argv) > 2 and Path(sys.argv[1]).is_dir():
        drive(Path(sys.argv[1]), sys.argv[2])
    else:
        main()
