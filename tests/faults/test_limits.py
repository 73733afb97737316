"""Trials that hang, take all memory, or give NaN: each fails alone, with its reason, and can be run again."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.sabotage import Fault, Gate, hang, hoard, meanwhile

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
NAN = {"loss": {"name": "contrastive"}, "train": {"optimizer": {"name": "sgd", "learning_rate": 1.0e30}}}


def test_one_that_hangs_one_without_memory_and_one_that_gives_nan_fail_alone(make_study, reference):
    study = make_study(
        losses={"ms": {"loss": {"name": "multi_similarity"}}, "nan": NAN},
        grids=[{"losses": ["ms"]}, {"losses": ["nan"], "regularizers": [[]], "seeds": [0]}],
        resources={"max_concurrent": 2, "time_limit_seconds": 12.0, "memory_bytes": 1_500_000_000},
    )
    (nan,) = [trial for trial in study.trials if trial.cell.labels["loss"] == "nan"]
    hanging, hoarding = [trial for trial in study.trials if trial is not nan][:2]
    faults = {hanging.key: (Fault(3, hang, always=True),), hoarding.key: (Fault(3, hoard, always=True),)}
    plan = study.run(faults)
    assert {trial.key for trial in plan.missing} == {nan.key, hanging.key, hoarding.key}
    assert plan.records[hanging.key].error.startswith("time limit: a trial may run 12 s")
    assert plan.records[hoarding.key].error.startswith("memory limit: a trial may take 1500000000 bytes")
    assert "train/loss must be finite" in plan.records[nan.key].error
    study.check(reference, failed=plan.missing, attempts={})
    study.run_here()
    study.check(reference, failed=[nan], attempts={trial.key: 2 for trial in plan.missing})


class MemoryGroup:
    """A control group of the kernel, of either version, that ends what takes more memory than it allows."""

    def __init__(self, name: str, limit_bytes: int) -> None:
        first = Path("/sys/fs/cgroup/memory")
        self.folder = (first if first.is_dir() else Path("/sys/fs/cgroup")) / name
        limit = "memory.limit_in_bytes" if first.is_dir() else "memory.max"
        try:
            self.folder.mkdir()
            (self.folder / limit).write_text(str(limit_bytes))
        except OSError:
            self.remove()
            pytest.skip("this machine lets no test limit the memory of a process")

    def add(self, pid: int) -> None:
        (self.folder / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        with suppress(OSError):
            self.folder.rmdir()


@pytest.fixture
def memory_group():
    group = MemoryGroup(f"dmlcore-test-{os.getpid()}", 500_000_000)
    yield group
    group.remove()


def test_the_kernel_ends_a_worker_for_want_of_memory_and_ray_ends_nothing(
    make_study, reference, memory_group, monkeypatch
):
    """Ray's own monitor is off where a sweep starts Ray: at the threshold here it would end every worker."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    study = make_study(regularizers=[[]])
    hoarding = study.trials[0]
    gate = Gate(study.folders.study / "hoarding")

    def act():
        memory_group.add(gate.pid())
        gate.open()

    with meanwhile(act):
        study.run({hoarding.key: (Fault(2, gate), Fault(3, hoard))})
    study.check(reference, attempts={hoarding.key: 2})
