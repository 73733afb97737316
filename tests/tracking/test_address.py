"""An address of MLflow that cannot work is refused at the start, one that does not answer is told why; no password."""

from __future__ import annotations

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from dmlcore.cli import app
from dmlcore.config.base import ConfigError, parse
from dmlcore.config.study import AggregateConfig
from dmlcore.core.errors import without_passwords
from dmlcore.records import RecordFolder
from dmlcore.tracking import MlflowTracker
from dmlcore.tracking.store import store_uri
from tests.analysis.synthetic import dataset_info, rows, table
from tests.tracking.test_mlflow import record
from tests.tracking.test_sync import SWEEP

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("htp://localhost:5000", "htp:// is unknown; did you mean http://?"),
        ("sqllite:///a.db", "did you mean sqlite://?"),
        ("ftp://me:secret@host", "ftp:// is unknown"),
        ("localhost:5000", "no scheme; write http://localhost:5000"),
        ("//10.0.0.1:5000/mlflow", "no scheme; write http://10.0.0.1:5000/mlflow"),
        ("http:/localhost:5000", "no host; two slashes"),
        ("http://", "no host"),
        ("http://me:secret@host:abc", "Port"),
        ("http://me:secret@host:99999", "Port"),
        ("http://my host:5000", "a space in it"),
        ("mlruns", "plain folders"),
        ("file:///tmp/mlruns", "plain folders"),
        ("sqlite://a.db", "three slashes"),
        ("sqlite:///", "three slashes"),
        ("sqlite:////tmp", "it is a folder"),
        ("postgresql:me:secret@host", "`://` must follow"),
    ],
)
def test_an_address_that_cannot_work_is_refused_at_the_start(tmp_path, monkeypatch, address, words):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(ConfigError) as caught:
        MlflowTracker.for_study("t", tmp_path, None)
    assert words in str(caught.value)
    assert "MLFLOW_TRACKING_URI must be like http" in str(caught.value)
    assert "secret@" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "used"),
    [
        (" http://127.0.0.1:5000/prefix \n", "http://127.0.0.1:5000/prefix"),
        ("https://me:secret@mlflow.example.org", "https://me:secret@mlflow.example.org"),
        ("http://[::1]:5000", "http://[::1]:5000"),
        ("postgresql+psycopg2://me:secret@db/mlflow", "postgresql+psycopg2://me:secret@db/mlflow"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("sqlite:///b.db", f"sqlite:///{Path.cwd() / 'b.db'}"),
        ("databricks://profile", "databricks://profile"),
        ("", "sqlite:////s/mlflow.db"),
    ],
)
def test_an_address_that_may_work_is_used(monkeypatch, address, used):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert store_uri(Path("/s")) == used


class Answer(BaseHTTPRequestHandler):
    """A server that is not MLflow."""

    def do_GET(self):
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    do_POST = do_GET  # noqa: N815

    def log_message(self, *arguments):
        pass


@pytest.fixture
def address(request, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.status = request.param
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uri = f"http://me:secret@127.0.0.1:{server.server_port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    yield uri
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (404, "is no MLflow server (API request"),
        (200, "is no MLflow server (API request"),
        (401, "asks for a user"),
    ],
    indirect=["address"],
)
def test_what_answers_and_is_no_store_is_named_at_the_start_without_the_password(
    address, words, tmp_path, caplog, capfd
):
    with caplog.at_level(logging.WARNING):
        MlflowTracker.for_study("t", tmp_path, None).prepare()
    assert words in caplog.text
    assert "prepare failed" in caplog.text
    assert "start the server" not in caplog.text
    assert "secret" not in caplog.text + "".join(capfd.readouterr())


@pytest.fixture
def study(tmp_path):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"sweep": SWEEP}))
    RecordFolder(tmp_path / "state" / "records").write(record(trial_key=f"{1:016x}-{1:08x}"))
    return tmp_path


@pytest.mark.parametrize("address", [404], indirect=True)
def test_sync_says_what_is_wrong_without_the_password(address, study, capfd):
    done = CliRunner().invoke(app, ["sync", "--study", str(study)])
    assert done.exit_code == 1
    assert "is no MLflow server" in done.output
    assert "correct host, port and path, then run `dmlcore sync`" in done.output
    assert "secret" not in done.output + "".join(capfd.readouterr())


@pytest.mark.parametrize("host", ["127.0.0.1:9", "no-such-host.invalid"])
def test_a_server_that_is_down_is_told_from_a_host_that_is_not_there(study, monkeypatch, host):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@{host}")
    done = CliRunner().invoke(app, ["sync", "--study", str(study)])
    assert done.exit_code == 1
    assert ("start the server" if "127" in host else "has a host that does not exist") in done.output
    assert "secret" not in done.output


def test_a_wrong_address_ends_sync_with_one_line(study, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "htp://me:secret@localhost")
    done = CliRunner().invoke(app, ["sync", "--study", str(study)])
    assert done.exit_code == 2
    assert done.output.count("\n") == 1
    assert "secret" not in done.output


def test_summary_names_the_store_without_its_password(study, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    (study / "results").mkdir()
    table(rows(backbones=("vit",))).write_parquet(study / "results" / "trials.parquet")
    (study / "results" / "datasets.json").write_text(json.dumps({"glyphs": dataset_info()}))
    done = CliRunner().invoke(app, ["summary", "--study", str(study)])
    assert done.exit_code == 0, done.output
    assert "http://***@127.0.0.1:9" in done.output
    assert "secret" not in done.output


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://me:secret@h:1/x failed", "at http://***@h:1/x failed"),
        ("'postgresql+psycopg2://me:se@cret@db/x'", "'postgresql+psycopg2://***@db/x'"),
        ("mssql://h/x?user=a&Password=secret&y=1", "mssql://h/x?user=a&Password=***&y=1"),
        ("http://h/a?access_token=secret", "http://h/a?access_token=***"),
        ("http://h/users/@me and mail@example.org", "http://h/users/@me and mail@example.org"),
    ],
)
def test_no_secret_of_an_address_is_shown(text, shown):
    assert without_passwords(text) == shown


def test_a_link_with_a_password_is_refused_and_not_shown():
    with pytest.raises(ConfigError, match="run_link") as caught:
        parse(AggregateConfig, {"run_link": "http://me:secret@h/{trial_key}"}, "params.yaml")
    assert "secret" not in str(caught.value)
    parse(AggregateConfig, {"run_link": "http://h/#/{trial_key}?a=@b"}, "params.yaml")
