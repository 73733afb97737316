"""docker/ as containers: the image is built, its services run a study through RAY_ADDRESS and outlive faults.

Minutes and some 9 GB of disk, so that `make containers` alone asks for it, by CONTAINERS=1.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from dmlcore.cli.study import insert_between_markers
from tests.checkout import ROOT, Checkout
from tests.containers.base_images import LABEL, exists, image_names
from tests.containers.driver import BEFORE_AND_AFTER, BESIDE_EACH_OTHER, FOLDER, TRIALS, gates
from tests.containers.engine import USER_ID, Containers, podman
from tests.faults import sabotage
from tests.faults.sabotage import meanwhile, wait_for
from tests.faults.study import EPOCHS
from tests.small import TRIAL

pytestmark = [pytest.mark.containers, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(3600)]
SECRET_NAMES = ("PASSWORD", "TOKEN", "KEY")
FIGURE = "utility_curve.png"
LIST_FIGURES = """
import os, boto3
store = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
pages = store.get_paginator("list_objects_v2").paginate(Bucket="mlflow")
print(*(item["Key"] for page in pages for item in page.get("Contents", [])), sep="\\n")
"""
rows: list[str] = []
"""Of the table: what was done and held, seconds."""
facts: dict[str, str] = {}


@pytest.fixture(scope="module")
def containers(tmp_path_factory):
    """The services and a checkout of eight tiny trials; nothing is built or started yet."""
    if os.environ.get("CONTAINERS") != "1":
        pytest.skip("containers are for `make containers`")
    if shutil.which("podman") is None:
        pytest.skip("no container engine is installed")
    missing = [name for name in image_names().values() if not exists(name)]
    assert not missing, f"python -m tests.containers.base_images makes {', '.join(missing)}"
    checkout = Checkout(tmp_path_factory.mktemp("containers") / "checkout", git=True)
    trial = {"train": TRIAL["train"] | {"epochs": EPOCHS}}
    checkout.params["sweep"] |= {"seeds": list(range(TRIALS // 2)), "trial": trial}
    checkout.write("params.yaml", checkout.params)
    checkout.git("add", "--all")
    checkout.git("commit", "--quiet", "--message", "study")
    made = Containers(checkout)
    sabotage.PATIENCE_SECONDS = 900.0  # a busy machine starts Ray's first workers in minutes
    try:
        yield made
    finally:
        made.remove()
    assert made.left() == []
    image = "the image stays, as it was there before" if made.image_was_here else "and the image"
    rows.append(f"| Remove containers, network, volumes, by their names, {image}: none is left | |")
    if "CONTAINERS_TABLE" in os.environ:
        insert_between_markers(Path(os.environ["CONTAINERS_TABLE"]), table(), "containers")
    print(table())


@pytest.fixture(autouse=True)
def row(request):
    """A row of the table for each test that passes: its docstring."""
    start, failed = time.monotonic(), request.session.testsfailed
    yield
    if request.session.testsfailed == failed:
        text = " ".join(request.function.__doc__.split()).removesuffix(".")
        named = text.replace("NAME", str(request.node.callspec.params["service"]) if "NAME" in text else "")
        rows.append(f"| {named} | {time.monotonic() - start:.0f} |")


def table() -> str:
    """Of the last run, in Markdown."""
    lines = [f"{name}: {value}." for name, value in facts.items()]
    return "\n".join([*lines, "", "| what was done, and held | seconds |", "| --- | ---: |", *rows])


def machine() -> str:
    """Return the day, the engine and what it runs on."""
    model = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {podman('--version').strip()} as root, {platform.system()}, "
        f"{psutil.cpu_count()} "
        f"cores of {model}, {memory:.0f} GiB"
    )


def base(name: str) -> str:
    """Return what an image is: the registry's own, or what stands in for it."""
    (found,) = json.loads(podman("image", "inspect", name))
    stand_in = (found["Labels"] or {}).get(LABEL)
    return f"for `{name}` stood {stand_in}" if stand_in else f"`{name}` as its registry has it"


def test_the_image(containers, tmp_path):
    """Build the image of `docker/Dockerfile` as it is: its user is not root, no layer holds a secret or settings of
    pip."""
    containers.build(tmp_path)
    (found,) = json.loads(podman("image", "inspect", containers.image))
    facts["Run"] = machine()
    facts["Base images"] = "; ".join(map(base, image_names().values()))
    facts["Image"] = f"{containers.image_size() / 1e9:.1f} GB with TORCH={os.environ.get('TORCH', 'cuda')}"
    assert found["Config"]["User"] == str(USER_ID)
    names = [line.partition("=")[0] for line in found["Config"]["Env"]]
    assert not [name for name in names if name.endswith(SECRET_NAMES)]
    history = podman("history", "--no-trunc", containers.image)
    assert not [value for value in containers.secrets.values() if value in history + json.dumps(found)]
    settings = podman(
        "run", "--rm", containers.image, "sh", "-c", "find /etc/pip.conf /mnt -type f -size +0 || true"
    )
    assert settings == ""


def test_all_services_become_healthy(containers):
    """Start all services at once: each becomes healthy, whichever was first."""
    containers.start()
    assert len(containers.names("worker")) == 2
    assert len(containers.names()) == 6


def test_ports_are_open_on_loopback_alone(containers):
    """Two ports are open, on loopback alone: MLflow answers, Ray's jobs ask for the token."""
    ports = [
        (binding["HostIp"], int(binding["HostPort"]))
        for name in containers.names()
        for bindings in containers.inspect(name)["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    ]
    assert sorted(ports) == sorted(
        ("127.0.0.1", port) for port in (containers.mlflow_port, containers.ray_port)
    )
    assert status(f"http://127.0.0.1:{containers.mlflow_port}/") == 200
    assert status(f"http://127.0.0.1:{containers.ray_port}/api/jobs/") == 401
    token = containers.secrets["RAY_AUTH_TOKEN"]
    assert status(f"http://127.0.0.1:{containers.ray_port}/api/jobs/", token) == 200


def status(address: str, token: str | None = None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_dvc_repro_in_the_head(containers):
    """`dvc repro` of 8 trials with RAY_ADDRESS in the head: each has its run in PostgreSQL with the commit, its figure
    in the object store, and the checkout's owner owns what it wrote."""
    printed = containers.execute("head", "dvc", "repro", options=["--env", "RAY_ADDRESS=auto"])
    assert f"{TRIALS} to run" in printed
    folder = containers.checkout.folder
    assert len(containers.checkout.records()) == TRIALS
    assert {path.stat().st_uid for path in (folder / "state").rglob("*")} == {USER_ID}
    assert (folder / "results" / "report.html").stat().st_uid == USER_ID
    figures = containers.execute("mlflow", "python", "-c", LIST_FIGURES).split()
    assert sum(name.endswith(FIGURE) for name in figures) == TRIALS
    query = "select count(*) from tags where key = 'git_commit'"
    login = ["psql", "--username", "mlflow", "--tuples-only", "--command", query]
    assert int(containers.execute("database", *login)) == TRIALS


def test_the_devcontainer(containers):
    """Open the checkout as `.devcontainer` does, without installing the tools of development: git knows it, its user
    may write there, for DVC and `dmlcore plan` the study that ran is up to date."""
    settings = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    work = settings["workspaceFolder"]
    mount = f"--volume={containers.checkout.folder}:{work}"
    options = [
        "--rm",
        "--init",
        *settings["runArgs"],
        f"--user={settings['remoteUser']}",
        f"--workdir={work}",
    ]
    path = settings["remoteEnv"]["PATH"].replace("${containerEnv:PATH}", "$PATH")
    script = f"set -e; export PATH={path}; touch new; rm new; git log -1; dvc status; dmlcore plan"
    printed = podman("run", *options, mount, containers.image, "bash", "-c", script)
    assert "Data and pipelines are up to date." in printed
    assert f"{TRIALS} cached, 0 new" in printed


def test_a_killed_worker(containers):
    """A worker's container is killed in mid-trial: the trial resumes from its checkpoint, the container returns by its
    restart policy, and records, runs and table equal those of an undisturbed run, each once."""
    containers.driver("prepare")
    pair = gates(containers.checkout.folder / FOLDER / "worker", BESIDE_EACH_OTHER)
    lost = 1

    def act():
        assert pair[0].node() != pair[1].node(), "the trials must run on two nodes"
        hosts = {containers.inspect(name)["Config"]["Hostname"]: name for name in containers.names("worker")}
        name = hosts[pair[lost].node()]
        began = containers.inspect(name)["State"]["StartedAt"]
        containers.kill(name)
        wait_for(lambda: containers.inspect(name)["State"]["StartedAt"] != began)
        pair[1 - lost].open()

    with meanwhile(act):
        containers.driver("run", "worker")
    containers.driver("check", "worker", json.dumps({lost: 2}))
    containers.wait_until_healthy("worker")


@pytest.mark.parametrize("service", ["mlflow", "database", "objects"])
def test_a_service_that_was_away(containers, service):
    """The container NAME is killed in mid-sweep and started again later: trials end meanwhile, none is begun twice, and
    records, runs and table equal those of an undisturbed run, each once."""
    folder = containers.checkout.folder / FOLDER / service
    before, after = gates(folder, BEFORE_AND_AFTER)

    def act():
        before.pid()
        containers.stop(service)
        before.open()
        after.pid()
        wait_for(lambda: list((folder / "state" / "records").glob("[!.]*.json")))
        containers.restart(service)
        after.open()

    with meanwhile(act):
        containers.driver("run", service)
    containers.driver("check", service)


def test_a_job(containers):
    """`ray job submit` from another node, with the token: the same study has nothing left to run."""
    options = ["--env=RAY_ADDRESS=http://head:8265"]
    job = ["ray", "job", "submit", "--", "bash", "-c", "cd /work && dvc repro sweep --force"]
    printed = containers.execute("worker", *job, options=options)
    assert "succeeded" in printed
    assert "0 to run" in printed
