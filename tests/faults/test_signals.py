"""A sweep ends by a signal without a loss, and resumes on a machine with next to no shared memory and disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from mlflow import MlflowClient

from dmlcore.config.data import PreprocessConfig, SplitConfig
from dmlcore.datasets.prepare.build import prepare
from dmlcore.records import RecordFolder
from tests.checkout import SWEEP, Checkout
from tests.faults.sabotage import wait_for
from tests.small import SIDE, small_catalogue

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SEEDS = 24
CTRL_C, HANGUP, TERMINATE = signal.SIGINT, signal.SIGHUP, signal.SIGTERM
SIGNALS = {
    "Ctrl-C": (CTRL_C,),
    "Ctrl-C twice": (CTRL_C, CTRL_C),
    "hangup": (HANGUP,),
    "terminate": (TERMINATE,),
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A study of short trials, one at a time; each of these tests goes on where the one before was interrupted."""
    made = Checkout(tmp_path_factory.mktemp("checkout"))
    sweep = SWEEP | {"seeds": list(range(SEEDS)), "regularizers": [[]], "resources": {"max_concurrent": 1}}
    made.write("params.yaml", {"sweep": sweep})
    config = PreprocessConfig(image_size=SIDE, split=SplitConfig(test_share=0.34, validation_share=0.25))
    prepare("glyphs", small_catalogue(), config, made.folder / "data" / "prepared" / "glyphs")
    return made


def start(checkout, *before, **environment):
    command = [*before, sys.executable, "pipeline/sweep.py"]
    with (checkout.folder / "sweep.log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=checkout.folder,
            env=checkout.environment | environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def log_of(checkout):
    return (checkout.folder / "sweep.log").read_text()


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_ends_a_sweep_and_every_process_of_it(checkout, name):
    before = checkout.records()
    process = start(checkout)
    wait_for(lambda: len(checkout.records()) > len(before) or process.poll() is not None)
    assert process.poll() is None, log_of(checkout)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for number in SIGNALS[name]:
        # A terminal signals all processes of its foreground job, a scheduler the one that it started.
        process.send_signal(number) if number == TERMINATE else os.killpg(process.pid, number)
        time.sleep(0.5)
    status = process.wait(timeout=120)
    _, alive = psutil.wait_procs(family[1:], timeout=60)
    assert not alive
    assert status != 0
    if name == "Ctrl-C":
        assert "sweep: interrupted; every finished trial is kept. Resume with: dvc repro" in log_of(checkout)
        assert "Traceback" not in log_of(checkout)
    after = checkout.records()
    assert before.items() <= after.items()
    assert len(before) < len(after) < SEEDS
    assert not list((checkout.folder / "state").rglob("*.part"))


def test_the_sweep_ends_with_64_megabytes_of_shared_memory_and_a_full_temporary_folder(checkout, tmp_path):
    before = checkout.records()
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    if subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("this machine lets no test mount a file system")
    small = (
        'mount -t tmpfs -o size=64m tmpfs /dev/shm; mount -t tmpfs -o size=64k tmpfs "$TMPDIR"; '
        'cat /dev/zero > "$TMPDIR/filler" 2>&-; exec "$@"'
    )
    process = start(checkout, "unshare", "--mount", "sh", "-c", small, "sh", TMPDIR=str(tmp_path))
    assert process.wait(timeout=600) == 0, log_of(checkout)
    records = RecordFolder(checkout.folder / "state" / "records").all()
    assert {record.status for record in records} == {"finished"}
    assert len(records) == SEEDS
    assert max(record.attempts for record in records) <= 2
    assert before.items() <= checkout.records().items()
    client = MlflowClient(f"sqlite:///{checkout.folder / 'state' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("dmlcore/test")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["trial_key"] for run in runs) == sorted(
        record.trial_key for record in records
    )
    assert {run.info.status for run in runs} == {"FINISHED"}
