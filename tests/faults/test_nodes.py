"""One of three Ray nodes is lost in mid-trial: its trial resumes from its checkpoint on another."""

from __future__ import annotations

import pytest

from dmlcore.config.sweep import ClusterConfig
from tests.faults.sabotage import Fault, Gate, meanwhile, raylet_of

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def three_nodes():
    """A head and two other nodes of one CPU each, each a separate raylet, at RAY_ADDRESS."""
    import dmlcore.sweep.ray.cluster  # noqa: F401 (its settings of Ray are for the nodes too)
    from tests.sweep.clusters import ray_cluster

    with ray_cluster(3) as made:
        yield made


def test_a_trial_of_a_lost_node_resumes_elsewhere(three_nodes, make_study, reference):
    study = make_study()
    trials = study.trials[:2]
    gates = [Gate(study.folders.study / name) for name in ("first", "second")]
    head = three_nodes.head_node.all_processes["raylet"][0].process.pid
    lost = []

    def act():
        raylets = [raylet_of(gate.pid()) for gate in gates]
        assert raylets[0] != raylets[1], "the trials must run on two nodes"
        raylet = next(raylet for raylet in raylets if raylet.pid != head)
        lost.append(trials[raylets.index(raylet)])
        for process in [raylet, *raylet.children(recursive=True)]:
            process.kill()
        gates[1 - raylets.index(raylet)].open()

    with meanwhile(act):
        study.run({trial.key: (Fault(3, gate),) for trial, gate in zip(trials, gates, strict=True)})
    study.check(reference, attempts={lost[0].key: 2})


def test_a_sweep_without_an_address_joins_no_cluster_that_happens_to_be_there(
    three_nodes, tmp_path, monkeypatch
):
    import ray

    from dmlcore.sweep.ray.cluster import connected

    monkeypatch.delenv("RAY_ADDRESS")
    with connected(ClusterConfig(), tmp_path, []):
        assert ray.get_runtime_context().gcs_address != three_nodes.address
