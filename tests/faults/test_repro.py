"""Two `dvc repro` started at once: one runs the sweep, the other says so; together they do each trial once."""

from __future__ import annotations

import pytest

from dmlcore.config.study import load_study
from tests.checkout import SWEEP, Checkout
from tests.faults.study import EPOCHS, Study
from tests.memory_tracker import MemoryTracker
from tests.small import TRIAL

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def checkout(tmp_path):
    made = Checkout(tmp_path / "checkout")
    trial = {"train": TRIAL["train"] | {"epochs": EPOCHS}}
    made.write("params.yaml", {"sweep": SWEEP | {"seeds": [0, 1], "trial": trial}})
    return made


def test_two_repros_at_once_run_each_trial_once(checkout, tmp_path):
    both = [checkout.start("repro", "sweep") for _ in range(2)]
    ended = sorted(process.wait(timeout=300) for process in both)
    log = (checkout.folder / "dvc.log").read_text()
    assert ended[0] == 0, log
    assert ended[1] == 0 or "another process" in log or "busy" in log, log
    again = checkout.dvc("repro", "sweep")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Running stage 'sweep'" not in again.stdout

    config = load_study(checkout.folder / "params.yaml").sweep
    prepared = checkout.folder / "data" / "prepared"
    reference = Study(tmp_path / "reference", prepared, config)
    reference.run_here(MemoryTracker())
    Study(checkout.folder, prepared, config).check(reference, attempts={})
