"""compose.yaml without containers: its commands and health checks as processes here, and a study on what they serve."""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec

import pytest

from dmlcore.config.study import load_study
from tests.checkout import SWEEP, Checkout
from tests.docker.services import PROGRAMS, SEAWEED, Services
from tests.faults.study import EPOCHS, Study
from tests.memory_tracker import MemoryTracker
from tests.servers import PostgresServer, free_port
from tests.small import TRIAL

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    made = Checkout(tmp_path_factory.mktemp("native") / "checkout")
    write_seeds(made, [0])
    done = made.dvc("repro", "data/dvc.yaml:preprocess@glyphs")
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def write_seeds(checkout, seeds):
    trial = {"train": TRIAL["train"] | {"epochs": EPOCHS}}
    checkout.write("params.yaml", {"sweep": SWEEP | {"seeds": seeds, "trial": trial}})


@pytest.fixture(scope="module")
def services(checkout, tmp_path_factory):
    """All services, healthy."""
    if find_spec("opencensus") is None:
        pytest.skip("the extra `cluster`, which the services need, is not installed")
    if shutil.which("weed") is None:
        pytest.skip("SeaweedFS is not installed")
    database = PostgresServer()
    made = Services(tmp_path_factory.mktemp("services"), database, checkout)
    try:
        moved = [f"-{part}.port={made.ports[part]}" for part in SEAWEED]
        made.start("objects", f"-s3.port={made.ports['objects']}", *moved, "-webdav=false", "-admin.ui=false")
        made.start("mlflow")
        ours = ["--num-cpus=1", "--node-ip-address=127.0.0.1"]
        made.start(
            "head",
            *ours,
            f"--dashboard-port={made.ports['jobs']}",
            f"--ray-client-server-port={free_port()}",
            f"--dashboard-agent-listen-port={made.ports['head-agent']}",
        )
        made.start("worker", *ours, f"--dashboard-agent-listen-port={made.ports['worker-agent']}")
        yield made
    finally:
        made.stop()
        database.remove()


def run(command, services, **more):
    """As `docker compose exec head` does."""
    done = subprocess.run(
        command,
        cwd=services.checkout.folder,
        env=services.environment("head") | more,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_service_is_healthy(services):
    assert [name for name in services.services if not services.healthy(name)] == []


def test_the_study_runs_on_the_cluster_and_then_as_a_job(services, checkout, tmp_path):
    assert "2 to run" in run(["dvc", "repro", "sweep"], services, RAY_ADDRESS="auto")
    write_seeds(checkout, [0, 1])
    address = f"http://127.0.0.1:{services.ports['jobs']}"
    entry = ["bash", "-c", f"cd {checkout.folder} && dvc repro sweep"]
    job = run([*PROGRAMS["ray"], "job", "submit", "--address", address, "--", *entry], services)
    assert "2 done" in job
    assert "2 to run" in job
    assert "succeeded" in job

    config = load_study(checkout.folder / "params.yaml").sweep
    prepared = checkout.folder / "data" / "prepared"
    reference = Study(tmp_path / "reference", prepared, config)
    reference.run_here(MemoryTracker())
    uri = f"http://127.0.0.1:{services.ports['mlflow']}"
    Study(checkout.folder, prepared, config, uri).check(reference, attempts={})


def test_the_figures_are_in_the_object_store(services):
    import boto3

    login = services.environment("objects")
    store = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{services.ports['objects']}",
        aws_access_key_id=login["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=login["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    names = [item["Key"] for item in store.list_objects_v2(Bucket="mlflow")["Contents"]]
    assert sum(name.endswith("utility_curve.png") for name in names) == 4
