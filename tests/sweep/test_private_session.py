"""A sweep on one machine: bound to loopback, and another user of the machine does not get in."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from dmlcore.config.sweep import ClusterConfig
from dmlcore.sweep.file_store import ClusterError
from dmlcore.sweep.ray import cluster
from dmlcore.sweep.ray import private_session as module
from dmlcore.sweep.ray.allocator import KEEP_FREED_MEMORY
from dmlcore.sweep.ray.cluster import connected
from tests.sweep.light_actor import Answering, faults_of_blocks

NOBODY = 65534


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A running local session: the address of its GCS, its folder, its token, its processes."""
    with connected(ClusterConfig(), tmp_path_factory.mktemp("state"), []):
        actor = ray.remote(num_cpus=0)(Answering).remote()
        assert ray.get(actor.answer.remote()) == {"a": 1.0}
        node = ray._private.worker._global_node
        yield {
            "gcs": node.gcs_address,
            "folder": Path(node.get_temp_dir_path()).parent,
            "token": os.environ["RAY_AUTH_TOKEN"],
            "processes": descendants(os.getpid()) | {os.getpid()},
        }


def descendants(pid: int) -> set[int]:
    found = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found |= {child} | descendants(child)
    return found


def listening(processes: set[int]) -> dict[str, set[str]]:
    """Local addresses on which these processes listen, as /proc/net writes them."""
    sockets = set()
    for pid in processes:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                sockets.add(str(link.readlink()))
            except OSError:
                continue
    found: dict[str, set[str]] = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.setdefault(name, set()).add(fields[1].split(":")[0])
    return found


def test_it_listens_on_loopback_alone(session):
    loopback = {
        "tcp": {"0100007F"},
        "tcp6": {"0000000000000000FFFF00000100007F", "00000000000000000000000001000000"},
    }
    found = listening(session["processes"])
    assert found
    for name, addresses in found.items():
        assert addresses <= loopback[name]


def test_its_folder_is_closed_and_its_token_is_in_no_file_and_on_no_command_line(session):
    assert session["folder"].stat().st_mode & 0o777 == 0o700
    token = session["token"].encode()
    files = [path for path in session["folder"].rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if token in path.read_bytes()]
    assert not [pid for pid in session["processes"] if token in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_worker_keeps_what_a_step_frees_for_the_next_step(session):
    """The kernel clears the pages of a block once, and not for every block anew."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("other C libraries than glibc have no such settings")
    first, *later = ray.get(ray.remote(num_cpus=0)(faults_of_blocks).remote(96, 4))
    assert first > 96 * 256 / 2  # pages of 4 KiB
    assert max(later) < first / 10


def test_the_driver_and_what_the_user_set_stay_as_they_are(monkeypatch):
    for name in KEEP_FREED_MEMORY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    with module.private_session():
        assert os.environ["MALLOC_ARENA_MAX"] == "2"
        assert os.environ["MALLOC_MMAP_MAX_"] == "0"
    assert {name for name in os.environ if name in KEEP_FREED_MEMORY} == {"MALLOC_ARENA_MAX"}


def as_nobody(code) -> str:
    """Run `code` in a process of another user; return what it says."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:  # no pytest here: end at once, whatever happens
        signal.alarm(60)
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writer, code().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


def test_another_user_finds_no_token(session):
    def search() -> str:
        seen = []
        for path in (
            *[Path(f"/proc/{pid}/environ") for pid in session["processes"]],
            session["folder"] / "r",
        ):
            try:
                seen.append(f"{path}: {len(path.read_bytes() if path.is_file() else list(path.iterdir()))}")
            except OSError:
                continue
        return f"seen: {seen}"

    assert as_nobody(search) == "seen: []"


ATTACK = """
import os, sys
from ray._raylet import GcsClient
try:
    client = GcsClient(address=sys.argv[1])
    print("inside:", client.internal_kv_keys(b"", None, timeout=20))
except BaseException as error:
    print("outside:", type(error).__name__, error)
"""


@pytest.mark.parametrize("token", ["", "0" * 64], ids=["no token", "a wrong token"])
def test_without_the_token_nobody_gets_in(session, token):
    """From a process that knows the address: what another user of the machine can do."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    environment |= (
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    )
    command = [sys.executable, "-c", ATTACK, session["gcs"]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "inside:" not in done.stdout
    inside = subprocess.run(
        command, env=dict(os.environ), capture_output=True, text=True, timeout=120, check=False
    )
    assert "inside:" in inside.stdout, inside.stderr  # the attack works with the token


def test_the_environment_is_as_before(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with module.private_session() as options:
        folder = Path(options["_temp_dir"]).parent
        assert os.environ["RAY_AUTH_MODE"] == "token"
        first = os.environ["RAY_AUTH_TOKEN"]
        (folder / "r").mkdir()
    assert not folder.exists()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert "RAY_AUTH_TOKEN" not in os.environ
    with module.private_session():
        assert os.environ["RAY_AUTH_TOKEN"] != first


@pytest.mark.parametrize("length", [20, 60, 120])
def test_a_long_folder_gives_way_to_a_shorter_one(tmp_path_factory, monkeypatch, length):
    """Schedulers' job folders have 47 characters and more; sockets can have 107 in all."""
    long = Path("/tmp") / ("x" * (length - 5))
    long.mkdir(exist_ok=True)
    try:
        monkeypatch.setattr(module.tempfile, "tempdir", str(long))
        with module.private_session() as options:
            base = Path(options["_temp_dir"]).parent.parent
            assert base == (long if length == 20 else Path("/tmp"))
    finally:
        long.rmdir()


def test_a_node_that_does_not_start_in_time_is_said_in_one_line(tmp_path, monkeypatch):
    def late(**_):
        raise Exception("The current node timed out during startup. The GCS has become overloaded.\nMore.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster.ray, "init", late)
    with (
        pytest.raises(ClusterError) as caught,
        connected(ClusterConfig(), tmp_path, []),
    ):
        pass
    assert str(caught.value) == (
        "Ray does not start on this machine: The current node timed out during startup. The GCS has become overloaded."
    )


def test_nowhere_to_put_it_is_said_in_one_line(monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.tempfile, "mkdtemp", full)
    with (
        pytest.raises(ClusterError, match=r"/tmp: No space left on device.*set TMPDIR"),
        module.private_session(),
    ):
        pass
