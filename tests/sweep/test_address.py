"""An address where no Ray cluster is: one line within 30 s, not a traceback and not silence."""

from __future__ import annotations

import http.server
import threading
import time
import warnings

import pytest

from dmlcore.config.sweep import ClusterConfig
from dmlcore.sweep.file_store import ClusterError
from dmlcore.sweep.ray import address as module
from dmlcore.sweep.ray.address import check_address
from dmlcore.sweep.ray.cluster import connected

pytestmark = pytest.mark.filterwarnings("ignore:other users of this machine")


@pytest.mark.parametrize(
    "address", ["head example", "head", "head:", "head:6379/x", "http://head:6379", ":6379"]
)
def test_what_is_no_address_is_refused(address, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with (
        pytest.raises(ClusterError, match=r"must be HOST:PORT or auto, got '.*'; set RAY_ADDRESS"),
        connected(ClusterConfig(), tmp_path, []),
    ):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:6379", "127.0.0.1:99999"])
def test_where_nothing_listens(address, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    start = time.monotonic()
    with (
        pytest.raises(
            ClusterError, match=rf"no Ray cluster answers at {address}: .*unset them to run on this machine"
        ),
        connected(ClusterConfig(), tmp_path, []),
    ):
        pass
    assert time.monotonic() - start < 30


def test_where_something_else_listens(monkeypatch):
    monkeypatch.setattr(module, "ANSWER_SECONDS", 6)
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(ClusterError, match="does not answer as a Ray cluster within 6 s"):
            check_address(f"127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def token(tmp_path, monkeypatch):
    """A token in a file of the home folder, as Ray keeps it."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text("0" * 64)
    return path


def test_a_token_that_others_can_read_is_warned_of(token):
    token.chmod(0o644)
    with pytest.warns(UserWarning, match=r"other users .* can read Ray's token in .*auth_token.*chmod 600"):
        check_address("auto")
    token.chmod(0o600)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_address("auto")


def test_a_cluster_without_authentication_is_warned_of(token, monkeypatch):
    token.chmod(0o600)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.warns(UserWarning, match="whoever reaches this cluster runs code as you"):
        check_address("auto")
