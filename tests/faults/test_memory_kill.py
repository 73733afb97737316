"""Ray's memory monitor ends a worker: its trial is tried again or fails alone, the sweep goes on.

The memory of the node is a file in place of its /proc/meminfo, so that the real monitor kills at a word of the test.
"""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import ray

import dmlcore.sweep.ray.cluster  # noqa: F401  its settings for Ray must not be made while a test has set others
from tests.faults.sabotage import Fault, Gate, meanwhile, wait_for
from tests.faults.study import study_config
from tests.sweep.clusters import ray_cluster

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SCARCE = ("MemFree", "MemAvailable", "Buffers", "Cached", "SReclaimable", "Shmem")


class Memory:
    """What a node takes for its memory: that of this machine, or hardly any left."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.real = Path("/proc/meminfo").read_text().splitlines()
        self.restore()

    def restore(self) -> None:
        self.path.write_text("\n".join(self.real) + "\n")

    def run_out(self) -> None:
        lines = [f"{line.split(':')[0]}: 1000 kB" if line.startswith(SCARCE) else line for line in self.real]
        self.path.write_text("\n".join(lines) + "\n")

    def end(self, pid: int) -> None:
        """Run out of memory until a process is gone."""
        self.run_out()
        wait_for(lambda: not psutil.pid_exists(pid))
        self.restore()


@contextmanager
def node_with(memory: Memory, head: str, monkeypatch):
    """A node of one CPU whose memory Ray watches; the head has none, so that all trials run there."""
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.98")
    mount = f"mount --bind {memory.path} /proc/meminfo"
    if subprocess.run(["unshare", "-m", "bash", "-c", mount], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets no test mount a file system")
    command = f"{mount} && exec ray start --block --num-cpus 1 --address {head}"
    process = subprocess.Popen(["unshare", "-m", "bash", "-c", command], stdout=subprocess.DEVNULL)
    try:
        ray.init(address=head, log_to_driver=False)
        wait_for(lambda: ray.cluster_resources().get("CPU"))
        ray.shutdown()
        yield
    finally:
        process.terminate()
        process.wait(60)


def test_a_trial_that_ray_ends_for_want_of_memory_fails_alone(make_study, reference, tmp_path, monkeypatch):
    study = make_study(regularizers=[[]])
    once, always = study.trials
    gates = [Gate(study.folders.study / name) for name in ("once", "first", "second")]
    memory = Memory(tmp_path / "meminfo")

    def act():
        for gate in gates:
            memory.end(gate.pid())

    faults = {once.key: (Fault(2, gates[0]),), always.key: (Fault(1, gates[1]), Fault(2, gates[2]))}
    with ray_cluster(1, cpus=0) as cluster, node_with(memory, cluster.address, monkeypatch), meanwhile(act):
        plan = study.run(faults)
    assert study_config().attempts == 2
    assert plan.missing == [always]
    error = plan.records[always.key].error
    assert error.startswith("process died")
    assert "want of memory" in error
    assert "\n" not in error
    attempts = {once.key: 2, always.key: 2}
    study.check(reference, failed=[always], attempts=attempts)
    study.run_here()
    study.check(reference, attempts=attempts | {always.key: 3})
