"""The driver dies, one of its workers lives on: the next driver waits for it and takes over where it was."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.faults.sabotage import Gate, meanwhile, raylet_of, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def driver(make_study, tmp_path):
    """A driver of the study `make_study()` in another process, whose first trial waits at a gate."""
    folders = make_study().folders
    folders.study.mkdir(parents=True)
    command = [sys.executable, "-m", "tests.faults.driver", str(folders.study), str(folders.prepared)]
    with (tmp_path / "driver.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log
        )
    yield process
    process.kill()
    process.wait(timeout=60)


@pytest.fixture
def orphans():
    """Processes to end after the test."""
    found: list[psutil.Process] = []
    yield found
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def test_the_orphan_of_a_killed_driver_doubles_nothing(make_study, reference, driver, orphans):
    study = make_study()
    trial = study.trials[0]
    records = study.records
    orphan = psutil.Process(Gate(study.folders.study / "gate").pid())
    orphans.append(orphan)
    orphan.suspend()  # it would end within moments of its node: now it keeps holding the trial's lock
    wait_for(records.all)
    raylet_of(orphan.pid).kill()  # it would take its workers along
    driver.kill()
    driver.wait(timeout=60)
    before = {record.trial_key: record for record in records.all()}
    assert 1 <= len(before) < 4, "the kill must come in mid-sweep"
    assert orphan.status() == psutil.STATUS_STOPPED

    def act():
        wait_for(lambda: len(records.all()) == 3)
        assert records.read(trial.key) is None
        Gate(study.folders.study / "gate").open()
        orphan.resume()

    with meanwhile(act):
        plan = study.run()
    assert {key: plan.records[key] for key in before} == before
    assert plan.records[trial.key].attempts <= 2
    assert not orphan.is_running()
    study.check(reference)
