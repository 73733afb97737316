"""scripts/slurm.sh as processes: no Slurm is needed, `srun` and `scontrol` are stand-ins, two raylets the two nodes."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from dmlcore.cli import app
from dmlcore.records import RecordFolder
from tests.checkout import SWEEP, Checkout
from tests.faults.sabotage import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).resolve().parents[2]
SRUN = """#!/bin/bash
# Starts the task of each node here, and ends them as Slurm does: by TERM.
while [[ "$1" == --* ]]; do declare "${1:2:2}=$2"; shift 2; done
trap 'kill $(jobs -p) 2> /dev/null' TERM
for ((node = 0; node < no; node++)); do SLURM_NODEID=$node "$@" & done
while [[ -n "$(jobs -rp)" ]]; do wait; done
"""
SCONTROL = '#!/bin/bash\n[[ "$1 $2 $3" == "show hostnames two-nodes" ]] && printf "127.0.0.1\\nother\\n"\n'


@pytest.fixture(params=[4])
def checkout(request, tmp_path):
    """Of a study of as many trials."""
    made = Checkout(tmp_path / "checkout")
    made.write("params.yaml", {"sweep": SWEEP | {"regularizers": [[]], "seeds": list(range(request.param))}})
    shutil.copytree(ROOT / "scripts", made.folder / "scripts")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    made.extra = {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLURM_JOB_ID": str(secrets.randbelow(20000)),
        "SLURM_JOB_NODELIST": "two-nodes",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
    }
    return made


@pytest.fixture
def job(checkout):
    """The script as `sbatch` would start it."""
    with (checkout.folder / "slurm.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "scripts/slurm.sh"],
            cwd=checkout.folder,
            env=checkout.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    yield process
    for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
        child.kill()
    process.kill()
    process.wait(timeout=60)


def status(checkout):
    shown = CliRunner().invoke(app, ["status", "--study", str(checkout.folder), "--json"])
    return json.loads(shown.output)


def log_of(checkout):
    return (checkout.folder / "slurm.log").read_text()


def test_a_job_runs_a_study_on_its_nodes_and_ends_its_own_processes(checkout, job):
    wait_for(lambda: len(status(checkout).get("running", ())) == 2 or job.poll() is not None)
    assert job.poll() is None, log_of(checkout)  # two trials at once, on two nodes of one CPU
    family = psutil.Process(job.pid).children(recursive=True)
    assert sum(process.name() == "raylet" for process in family) == 2
    assert not any(job_token(process) for process in family)
    folder = Path(f"/proc/{family[0].pid}/environ").read_bytes()
    (folder,) = [v for v in folder.split(b"\0") if v.startswith(b"DMLCORE_RAY_FOLDER=")]
    assert job.wait(timeout=400) == 0, log_of(checkout)
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    assert not Path(folder.partition(b"=")[2].decode()).exists()
    assert "4 of 4 trials are finished" in log_of(checkout)
    records = RecordFolder(checkout.folder / "state" / "records").all()
    assert [record.status for record in records] == ["finished"] * 4


def job_token(process) -> bool:
    """Whether its command line, which all users see, holds 64 hexadecimal digits."""
    line = " ".join(process.cmdline())
    return any(
        len(word) >= 64 and set(word) <= set("0123456789abcdef") for word in line.replace("=", " ").split()
    )


@pytest.mark.parametrize("checkout", [20], indirect=True)
def test_before_its_time_ends_a_job_starts_no_further_trial(checkout, job):
    wait_for(lambda: status(checkout).get("running") or job.poll() is not None)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=400) != 0, log_of(checkout)
    said = log_of(checkout)
    assert "halted: drained by" in said
    assert "to go on where it ended: sbatch scripts/slurm.sh ." in said
    assert 1 <= len(checkout.records()) < 20
