"""The container files pass their linters and schemas, and keep the rules that those do not know."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "docker"
TOOLS = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
DEVCONTAINER = FOLDER.parent / ".devcontainer" / "devcontainer.json"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
JOB = yaml.safe_load((FOLDER / "rayjob.yaml").read_text())
CLUSTER = JOB["spec"]["rayClusterSpec"]
GROUPS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]
PINNED = re.compile(r"^[\w./-]+:[\w.-]*\d[\w.-]*$")
SERVICES = sorted(COMPOSE["services"])


def run(tool, *arguments):
    """A tool of the `dev` extra."""
    command = [shutil.which(tool, path=TOOLS) or tool, *(str(part) for part in arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_dockerfile_passes_hadolint():
    done = run("hadolint", FOLDER / "Dockerfile")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stdout


def test_the_dockerfile_ends_as_another_user_than_root_and_holds_no_secret():
    text = (FOLDER / "Dockerfile").read_text()
    users = re.findall(r"^USER (.+)$", text, flags=re.MULTILINE)
    assert users == ["${USER_ID}"]
    assert "ARG USER_ID=1000" in text
    assert "ARG TORCH=cuda" in text
    assert not re.search(r"password|secret|token|access_key", text, flags=re.IGNORECASE)


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cuda.yaml"])
def test_compose_fits_the_specification(name):
    done = run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", FOLDER / name)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_a_pinned_image_and_a_health_check(name):
    service = COMPOSE["services"][name]
    assert PINNED.match(service["image"]), service["image"]
    assert not service["image"].endswith("latest")
    assert service["healthcheck"]["test"][0] == "CMD"


def test_no_password_has_a_default():
    text = (FOLDER / "compose.yaml").read_text()
    secret = re.compile(r"\$\{([A-Z0-9_]*(?:PASSWORD|TOKEN|KEY))(.*?)\}")
    found = secret.findall(text)
    assert {name for name, _ in found} == {
        "POSTGRES_PASSWORD", "RAY_AUTH_TOKEN", "S3_ACCESS_KEY", "S3_SECRET_KEY",
    }  # fmt: skip
    assert all(rule.startswith(":?") for _, rule in found)
    example = (FOLDER / "environment.example").read_text().splitlines()
    assert {f"{name}=" for name, _ in found} <= set(example)


def test_ports_are_open_to_this_machine_alone():
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("${PUBLISH:-127.0.0.1}:") for port in ports)


def test_all_ray_nodes_share_token_and_code():
    head, worker = COMPOSE["services"]["head"], COMPOSE["services"]["worker"]
    assert head["environment"] == worker["environment"]
    # Podman-compose starts one container where the mode is not said.
    assert worker["deploy"] == {"mode": "replicated", "replicas": "${WORKERS:-2}"}
    assert head["environment"]["RAY_AUTH_MODE"] == "token"
    assert head["volumes"] == worker["volumes"] == ["..:/work"]


def test_mlflow_answers_to_the_name_that_the_nodes_use():
    command = COMPOSE["services"]["mlflow"]["command"]
    (hosts,) = [part for part in command if part.startswith("--allowed-hosts=")]
    uri = COMPOSE["services"]["head"]["environment"]["MLFLOW_TRACKING_URI"]
    assert uri.removeprefix("http://") in hosts.removeprefix("--allowed-hosts=").split(",")


@pytest.mark.parametrize("group", GROUPS, ids=["head", "workers"])
def test_a_pod_of_the_job_is_a_valid_pod_that_does_not_run_as_root(group):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x"},
        **json.loads(json.dumps(group["template"])),
    }
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["spec"]["containers"]
    assert PINNED.match(container["image"])
    assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_the_job_uses_this_version_of_ray_with_a_token():
    assert (JOB["apiVersion"], JOB["kind"]) == ("ray.io/v1", "RayJob")
    assert CLUSTER["rayVersion"] == version("ray")
    assert CLUSTER["authOptions"] == {"mode": "token"}
    assert {group["template"]["spec"]["containers"][0]["image"] for group in GROUPS} == {
        COMPOSE["services"]["head"]["image"]
    }


def test_the_devcontainer_builds_the_same_image_and_works_as_its_user():
    settings = json.loads(DEVCONTAINER.read_text())
    dockerfile = (FOLDER / "Dockerfile").read_text()
    assert (DEVCONTAINER.parent / settings["build"]["dockerfile"]).resolve() == FOLDER / "Dockerfile"
    assert (DEVCONTAINER.parent / settings["build"]["context"]).resolve() == FOLDER.parent
    assert settings["build"]["args"].keys() <= set(re.findall(r"^ARG (\w+)", dockerfile, flags=re.MULTILINE))
    assert f'useradd --create-home --uid "${{USER_ID}}" {settings["remoteUser"]}\n' in dockerfile.replace(
        " \\", ""
    )
    assert settings["workspaceFolder"] == re.findall(r"^WORKDIR (.+)$", dockerfile, flags=re.MULTILINE)[-1]


def test_the_file_of_passwords_is_in_no_commit_and_no_image():
    assert "/docker/.env" in (FOLDER.parent / ".gitignore").read_text().splitlines()
    first, *allowed = (FOLDER.parent / ".dockerignore").read_text().splitlines()
    assert first == "*"
    assert not [line for line in allowed if "docker" in line]
