"""A sweep on a Ray cluster of several nodes: shared folder, storage, the check of every node, shipped code."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import fsspec
import psutil
import pytest
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dmlcore.config.sweep import ClusterConfig
from dmlcore.records import RecordFolder
from dmlcore.sweep.execution.trial_log import log_file
from dmlcore.sweep.file_store import ClusterError, SharedStorageError
from dmlcore.sweep.ray.allocator import KEEP_FREED_MEMORY
from dmlcore.sweep.ray.cluster import connected
from dmlcore.sweep.ray.node_checks import (
    PACKAGE,
    StorageProbe,
    code_version,
    probe_node,
)
from dmlcore.sweep.ray.remote_worker import run_remote, scratch, upload_inputs
from dmlcore.sweep.ray.shared_storage import SharedStorage
from dmlcore.sweep.run import SweepFolders, run_sweep
from dmlcore.training.checkpoint import load_training_state
from dmlcore.training.run import run_trial
from dmlcore.training.store import TrialStore
from tests.memory_tracker import MemoryTracker
from tests.servers import s3_environment, s3_server
from tests.sweep.clusters import ray_cluster
from tests.sweep.light_actor import Answering, malloc_settings
from tests.sweep.search.searches import searching
from tests.sweep.sweeps import plan_of, run_here, sweep_config, worker_context

pytestmark = pytest.mark.filterwarnings("ignore")
MOUNTS = "this machine lets no test mount a file system"


@pytest.fixture
def folders(tmp_path, small_data):
    return SweepFolders(tmp_path / "study", small_data.folder.parent)


@pytest.fixture(scope="module")
def metrics(tmp_path_factory, small_data) -> dict[str, dict[str, float | None]]:
    """Of the sweep's trials, run here one after the other."""
    folders = SweepFolders(tmp_path_factory.mktemp("here") / "study", small_data.folder.parent)
    return {record.trial_key: record.metrics for record in run_here(sweep_config(), folders, MemoryTracker())}


@pytest.fixture(scope="module")
def object_store() -> Iterator[str]:
    """Address of a bucket on a server that speaks S3; the environment holds its credentials."""
    with s3_server("sweeps") as port, s3_environment(port):
        yield "s3://sweeps/small"


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory, object_store) -> Iterator[None]:
    os.environ["DMLCORE_SCRATCH"] = str(tmp_path_factory.mktemp("scratch"))
    with ray_cluster(2):
        yield
    del os.environ["DMLCORE_SCRATCH"]


def found(plan):
    return {key: record.metrics for key, record in plan.records.items()}


@pytest.mark.slow
def test_a_cluster_gives_the_numbers_of_one_machine(two_nodes, folders, metrics):
    tracker = MemoryTracker()
    plan = run_sweep(sweep_config(), folders, tracker)
    assert found(plan) == metrics
    assert not list((folders.state / "nodes").iterdir())


@pytest.mark.slow
def test_nodes_that_share_no_disk_use_shared_storage(two_nodes, folders, metrics, object_store):
    tracker = MemoryTracker()
    plan = run_sweep(sweep_config(cluster={"storage": object_store}), folders, tracker)
    assert found(plan) == metrics
    assert {key: sorted(epochs) for key, epochs in tracker.epochs.items()} == {
        key: [0, 1, 2] for key in metrics
    }
    for trial in plan.trials:
        assert TrialStore(trial.store_folder).matches(plan.records[trial.key].files)
        assert "epoch 2/2" in log_file(folders.state, trial.key).read_text()
    left = {name.split("/")[2] for name in fsspec.filesystem("s3").find(object_store)}
    assert left == {"data"}  # all else was taken over


@pytest.mark.slow
def test_a_search_that_stops_early_spreads_over_nodes_that_share_no_disk(two_nodes, folders, object_store):
    config = searching(
        {"trials": 3},
        stop_early={"grace_epochs": 1, "reduction_factor": 2},
        cluster={"storage": f"{object_store}-search"},
    )
    plan = run_sweep(config, folders, MemoryTracker())
    assert not plan.missing
    roles = Counter(record.labels["role"] for record in plan.records.values())
    assert roles["chosen"] == 4  # two variants at two seeds
    assert {record.status for record in plan.records.values()} <= {"finished", "stopped"}
    again = run_sweep(config, folders, MemoryTracker())
    assert again.records == plan.records


class Loop:
    """What the garbage collector alone can free."""

    def __init__(self, handle) -> None:
        self.me, self.handle = self, handle


def start_and_stop_ray_while_a_thread_collects(state: str) -> None:
    collecting, ended = threading.Event(), threading.Event()

    def collect() -> None:
        while not ended.is_set():
            collecting.wait()  # while Ray starts, the thread would only take the interpreter away from it
            gc.collect(0)
            [[] for _ in range(2000)]

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        for _ in range(2):
            with connected(ClusterConfig(), Path(state), []):
                kind = ray.remote(num_cpus=0)(Answering)
                actor = kind.remote()
                ray.get(actor.answer.remote())
                collecting.set()
                loops = [Loop(actor.answer.remote()) for _ in range(300)]
                loops += [Loop(actor) for _ in range(1500)] + [Loop(kind.remote()) for _ in range(20)]
                del actor, loops
            collecting.clear()
    finally:
        ended.set()
        collecting.set()
        collector.join()


@pytest.mark.slow
def test_ray_stops_while_another_thread_collects_garbage(tmp_path):
    """Ray ends the process at once where a thread frees a handle of an actor in the moment of its shutdown."""
    process = multiprocessing.get_context("spawn").Process(
        target=start_and_stop_ray_while_a_thread_collects, args=(str(tmp_path),)
    )
    process.start()
    process.join(600)  # a limit for a hang, not for a busy machine
    assert process.exitcode == 0


@pytest.mark.slow
def test_the_code_and_the_settings_of_malloc_go_with_the_job(tmp_path):
    """To a node that has the packages and not this code."""
    with (
        ray_cluster(1) as cluster,
        _node_without(PACKAGE, cluster),
        connected(ClusterConfig(), tmp_path / "state", []),
    ):
        found = [
            ray.get(ray.remote(_package_folder).options(scheduling_strategy=_on(node["NodeID"])).remote())
            for node in ray.nodes()
        ]
        settings = ray.get(ray.remote(malloc_settings).remote())
    assert sum("runtime_resources" in folder for folder in found) == 1
    assert settings == KEEP_FREED_MEMORY


def _package_folder() -> str:
    import dmlcore.sweep

    return str(dmlcore.sweep.__path__[0])


def _on(node_id: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)


@pytest.mark.slow
def test_a_node_with_other_code_is_refused(two_nodes, tmp_path):
    probe = StorageProbe.create(tmp_path, None)
    with connected(ClusterConfig(), tmp_path / "state", []):
        look = ray.remote(probe_node).remote(probe, "node", [], {"torch": "1.0", "dmlcore's code": "other"})
        faults = ray.get(look)
    assert [fault.split(",")[0] for fault in faults] == [
        f"has torch {version('torch')}",
        f"has dmlcore's code {code_version()}",
    ]


@pytest.mark.slow
def test_missing_data_and_storage_are_reported_by_node(two_nodes, tmp_path):
    with (
        pytest.raises(ClusterError, match=r"(?s)2 fault\(s\).*node .*absent is missing.*node "),
        connected(ClusterConfig(), tmp_path / "state", [tmp_path / "absent"]),
    ):
        pass
    with (
        pytest.raises(SharedStorageError, match="fsspec address"),
        connected(ClusterConfig(storage="nowhere://x"), tmp_path / "state", []),
    ):
        pass


@pytest.mark.slow
def test_a_node_that_died_a_moment_ago_keeps_no_sweep_from_starting(tmp_path, capsys):
    with ray_cluster(2) as cluster:
        raylet = psutil.Process(cluster.worker_nodes.copy().pop().all_processes["raylet"][0].process.pid)
        for process in (raylet, *raylet.children(recursive=True)):
            process.kill()
        began = time.monotonic()
        with connected(ClusterConfig(), tmp_path / "state", []):
            took = time.monotonic() - began
            known = [node["Alive"] for node in ray.nodes()]
    assert "has died and is left out" in capsys.readouterr().out
    # Ray itself does not know yet: without a look of our own the check would wait until it does, and then refuse.
    assert known == [True, True]
    assert took < 60


@pytest.mark.slow
def test_a_node_that_does_not_share_the_folder_is_refused_before_the_first_trial(folders):
    folders.state.mkdir(parents=True)
    with (
        ray_cluster(1) as cluster,
        _node_without(folders.state, cluster),
        pytest.raises(ClusterError, match=r"(?s)1 fault\(s\).*does not share .*state; mount the checkout"),
    ):
        run_sweep(sweep_config(), folders, MemoryTracker())
    assert not list(folders.records.glob("*.json"))


class _node_without:  # noqa: N801 (used like a function)
    """A node in a separate mount namespace, in which `folder` is another, empty file system."""

    def __init__(self, folder: Path, cluster) -> None:
        hide = ["unshare", "-m", "bash", "-c", f"mount -t tmpfs none {folder}"]
        if subprocess.run(hide, check=False, capture_output=True).returncode:
            pytest.skip(MOUNTS)
        hide[-1] += f" && exec ray start --block --num-cpus 1 --address {cluster.address}"
        self.process = subprocess.Popen(hide, stdout=subprocess.DEVNULL)
        self.cluster = cluster

    def __enter__(self) -> None:
        ray.init(address=self.cluster.address, log_to_driver=False)
        deadline = time.monotonic() + 60
        while sum(node["Alive"] for node in ray.nodes()) < 2:
            assert time.monotonic() < deadline, "the second node did not come up"
            time.sleep(0.5)
        ray.shutdown()

    def __exit__(self, *failure) -> None:
        self.process.terminate()
        self.process.wait(30)


def test_no_cluster_at_the_address(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:1")
    with (
        pytest.raises(ClusterError, match="ray job submit"),
        connected(ClusterConfig(), tmp_path, []),
    ):
        pass


# ------------------------------------------------------------------- shared storage, without Ray


@pytest.fixture
def remote(folders, tmp_path, monkeypatch):
    """Return (trial, worker context, storage) with the trial's inputs uploaded."""
    monkeypatch.setenv("DMLCORE_SCRATCH", str(tmp_path / "scratch"))
    trial = plan_of(sweep_config(regularizers=[[]]), folders).missing[0]
    context = worker_context(folders)
    storage = SharedStorage(f"file://{tmp_path / 'storage'}")
    upload_inputs([trial], storage)
    return trial, context, storage


def run_again(folders, storage):
    """The stage after a driver that was killed; gives the plan and the trials that it ran."""
    config = sweep_config(regularizers=[[]], cluster={"storage": storage.address})
    return run_sweep(config, folders, MemoryTracker())


@pytest.mark.slow
def test_what_a_node_left_is_taken_over_and_not_run_again(two_nodes, remote, folders, metrics):
    trial, context, storage = remote
    record = run_remote(trial, context, lambda report: None, storage)
    assert not RecordFolder(context.records).path(trial.key).exists()
    plan = run_again(folders, storage)
    assert plan.records[trial.key] == record
    assert record.metrics == metrics[trial.key]
    assert storage.names("records") == []


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["record", "embeddings"])
def test_damaged_files_of_a_node_are_not_taken(two_nodes, remote, folders, metrics, damage):
    trial, context, storage = remote
    run_remote(trial, context, lambda report: None, storage)
    if damage == "record":
        storage.write(f"records/{trial.key}.json", b'{"trial_key": "another"')
    else:
        storage.write(f"storage/{trial.keys.train[:16]}/test.safetensors", b"other")
    plan = run_again(folders, storage)
    assert found(plan) == {trial.key: metrics[trial.key]}


def test_a_checkpoint_goes_from_node_to_node(remote, metrics, tmp_path, monkeypatch):
    """An attempt that ends on one node resumes from its checkpoint on another, to the same bits."""
    trial, context, storage = remote
    begun_at: list[int | None] = []

    def run(config, data, *, store, **options):
        state = load_training_state(store)
        begun_at.append(state and state[0].epoch)
        return run_trial(config, data, store=store, checkpoint_seconds=0.0, **options)

    def lost(report):
        if report.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_remote(trial, replace(context, run=run), lost, storage)
    monkeypatch.setenv("DMLCORE_SCRATCH", str(tmp_path / "another node"))
    record = run_remote(trial, replace(context, run=run), lambda report: None, storage)
    assert begun_at == [None, 1]
    assert record.metrics == metrics[trial.key]
    assert record.attempts == 2


def test_shared_storage_keeps_to_its_folder_and_gives_complete_files_only(tmp_path):
    storage = SharedStorage(f"file://{tmp_path / 'place'}")
    with pytest.raises(SharedStorageError, match=r"without `\.\.`"):
        storage.read("../outside")
    assert storage.read("absent") is None
    assert not storage.get("absent", tmp_path / "here")
    assert not (tmp_path / "here").exists()
    with pytest.raises(SharedStorageError, match="missing or incomplete"):
        storage.get_folder("data/x", tmp_path / "data", ["images.bin"])
    source = tmp_path / "images.bin"
    source.write_bytes(b"12345")
    storage.put_folder([source], "data/x")
    (tmp_path / "place" / "data" / "x" / "images.bin").write_bytes(b"123")
    with pytest.raises(SharedStorageError, match="must have 5 bytes"):
        storage.get_folder("data/x", tmp_path / "data", ["images.bin"])
    (tmp_path / "place" / "data" / "x" / "complete.json").write_text(json.dumps({"../../outside": 3}))
    with pytest.raises(SharedStorageError, match="outside"):
        storage.get_folder("data/x", tmp_path / "data", ["images.bin"])
    assert not (tmp_path / "outside").exists()


def test_a_scratch_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("DMLCORE_SCRATCH", str(tmp_path))
    (tmp_path / f"dmlcore-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(SharedStorageError, match="folder of this user"):
        scratch("file:///x")
