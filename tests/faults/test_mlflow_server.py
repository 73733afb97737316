"""The MLflow server and its database stop in mid-sweep and start again: the sweep continues, nothing is doubled."""

from __future__ import annotations

import pytest

from tests.faults.sabotage import Fault, Gate, meanwhile, wait_for
from tests.servers import MlflowServer, PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def postgres():
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def servers(request, tmp_path):
    """What is stopped, in this order, and started, in the other: MLflow's server, its database if that is another."""
    database = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    server = MlflowServer(tmp_path, database.uri if database else None)
    server.start()
    yield [server, database] if database else [server]
    server.stop()


def test_a_server_that_is_killed_and_started_again_has_every_run_once(servers, make_study, reference):
    study = make_study(uri=servers[0].uri)
    trial = study.trials[0]
    before, after = (Gate(study.folders.study / name) for name in ("before", "after"))

    def act():
        before.pid()
        for server in servers:
            server.stop()
        before.open()
        after.pid()
        wait_for(study.records.all)  # one ends while the server is down
        for server in reversed(servers):
            server.start()
        after.open()

    with meanwhile(act):
        study.run({trial.key: (Fault(2, before), Fault(3, after))})
    study.check(reference, attempts={})
