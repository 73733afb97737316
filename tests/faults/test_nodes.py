"""One of three Ray nodes is lost in mid-trial: its trial goes on from its checkpoint on another."""

from __future__ import annotations

import shutil
import tempfile

import psutil
import pytest

from dmlcore.config import ResourcesConfig
from tests.faults.sabotage import Fault, Gate, meanwhile

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def cluster():
    """A head and two nodes of one CPU each, every one a raylet of its own."""
    from ray.cluster_utils import Cluster

    import dmlcore.tuning.ray_tune  # noqa: F401 (its settings of Ray are for the nodes too)

    folder = tempfile.mkdtemp(
        prefix="dml-"
    )  # short, for sockets; no other program's Ray finds this cluster there
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        for _ in range(2):
            made.add_node(num_cpus=1)
        yield made
        made.shutdown()
    shutil.rmtree(folder)


def raylet_of(worker: int) -> psutil.Process:
    return next(parent for parent in psutil.Process(worker).parents() if parent.name() == "raylet")


def test_a_sweep_without_an_address_joins_no_cluster_that_happens_to_be_there(cluster):
    import ray

    from dmlcore.tuning.ray_tune import _ray

    with _ray(ResourcesConfig()):
        assert ray.get_runtime_context().gcs_address != cluster.address


def test_a_trial_of_a_node_that_is_lost_goes_on_elsewhere(cluster, make_study, reference, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    study = make_study()
    lost = study.trials[0]
    gate = Gate(study.folders.study / "gate")

    def act():
        raylet = raylet_of(gate.pid())
        for process in [raylet, *raylet.children(recursive=True)]:
            process.kill()

    with meanwhile(act):
        study.run({lost.key: (Fault(3, gate),)})
    study.check(reference, attempts={lost.key: 2})
