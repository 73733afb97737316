"""Finished trials that a team shares: a clone reruns nothing, nothing from the store is trusted, one record a trial."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from dmlcore.cli import app
from dmlcore.cli.options import INCOMPLETE, WRONG_INPUT
from dmlcore.config.base import ConfigError
from dmlcore.records import RecordError, RecordFolder, parse_record, record_text
from dmlcore.sweep import team_store
from dmlcore.sweep.execution.worker import execute, make_record
from dmlcore.sweep.margin_rates import NEGATIVES, POSITIVES
from dmlcore.sweep.plan import CANCELLED
from dmlcore.sweep.run import SweepFolders, run_sweep
from dmlcore.sweep.team_store import TeamStore
from dmlcore.sweep.team_sync import TeamSync
from dmlcore.training.store import TrialStore
from tests.faults.sabotage import PATIENCE_SECONDS, Gate
from tests.memory_tracker import MemoryTracker
from tests.servers import free_port, s3_environment, s3_server
from tests.sweep.sharing import shared_study
from tests.sweep.sweeps import not_called, plan_of, run_here, sweep_config, worker_context

pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = Path(__file__).resolve().parents[2]
FAR = {"host": "gpu1"}


@pytest.fixture(scope="module")
def s3():
    """Address of a bucket; the environment holds its server and credentials."""
    with s3_server("team") as port, s3_environment(port):
        yield "s3://team"


@pytest.fixture(params=["folder", "file", "memory", "s3"])
def address(request, tmp_path):
    """Of an empty store."""
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    return {
        "folder": str(tmp_path / "team"),
        "file": f"file://{tmp_path}/team",
        "memory": f"memory://{tmp_path.name}",
    }[request.param]


@pytest.fixture
def place(tmp_path):
    """A store that is a folder."""
    return tmp_path / "team"


class Side:
    """A study in a folder of its own, one of those that share a store."""

    def __init__(self, folder: Path, prepared: Path, config) -> None:
        self.folders, self.config, self.said = SweepFolders(folder, prepared), config, []
        self.records = RecordFolder(self.folders.records)
        self.sync = self.new_sync()

    def new_sync(self) -> TeamSync:
        team = TeamStore.of(self.config, self.folders.study)
        return TeamSync(team, self.records, self.folders.study / self.config.storage, self.said.append)

    @property
    def plan(self):
        return plan_of(self.config, self.folders)

    def take(self):
        self.sync = self.new_sync()
        return self.sync.taking(lambda: self.plan)

    def run(self) -> None:
        run_here(self.config, self.folders, MemoryTracker())

    def on(self, host: str) -> None:
        """Let its records be those of another machine."""
        for record in self.records.all():
            self.records.write(record.model_copy(update={"machine": {"host": host}}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, small_data):
    """The study folder of two trials that ran on gpu1."""
    side = Side(tmp_path_factory.mktemp("trained") / "study", small_data.folder.parent, sweep_config())
    side.run()
    side.on("gpu1")
    return side.folders.study


@pytest.fixture
def make(tmp_path, small_data, trained):
    """Make a side; `copied`: with the two trials in it."""

    def make(name: str, address, copied: bool = False, **changes) -> Side:
        folder = tmp_path / name
        if copied:
            shutil.copytree(trained, folder)
        return Side(folder, small_data.folder.parent, sweep_config(records=str(address), **changes))

    return make


@pytest.mark.parametrize("files", [False, True])
def test_a_clone_reruns_nothing_and_says_where_the_trials_ran(make, address, files, capsys):
    first = make("first", address, copied=True, records_files=files)
    assert first.sync.leave_all() == 0
    # Another name for the loss: labels are each study's own.
    losses = {"mine": {"loss": {"name": "multi_similarity"}}}
    clone = make("clone", address, records_files=files, losses=losses)
    plan = run_sweep(clone.config, clone.folders, MemoryTracker(), not_called)
    assert not plan.missing
    assert "has 2 trials, which are not run again: 2 ran on gpu1" in capsys.readouterr().out
    for trial in plan.trials:
        record, theirs = plan.records[trial.key], first.records.read(trial.key)
        assert record.labels["loss"] == "mine"
        assert record == theirs.model_copy(update={"labels": record.labels})
        assert TrialStore(trial.store_folder).matches(record.files) == files
        assert list(trial.store_folder.parent.glob(".*")) == []
    clone.sync.leave_all()
    assert clone.sync.left == []  # nothing is left there twice


def test_a_store_changes_no_key(make, place):
    assert [t.key for t in make("a", place).plan.trials] == [
        t.key for t in plan_of(sweep_config(), make("b", place).folders).trials
    ]


def test_what_is_left_before_a_trial_begins_is_taken_by_its_worker(make, place):
    first, late = make("first", place, copied=True), make("late", place, records_files=True)
    first.config = first.config.model_copy(update={"records_files": True})
    first.new_sync().leave_all()
    context = worker_context(late.folders, run=not_called, team=late.sync.team)
    trial = late.plan.missing[0]
    record = execute(trial, context, not_called)
    assert record.machine == FAR
    assert TrialStore(trial.store_folder).matches(record.files)
    assert late.records.read(trial.key) == record


def damaged(record, **changes) -> bytes:
    return record_text(record.model_copy(update=changes)).encode()


def forged(record, **changes) -> bytes:
    """A record with other content under the same keys, and a checksum that fits."""
    return damaged(record, **{name: {**getattr(record, name), **value} for name, value in changes.items()})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda r: b"", "is not JSON"),
        (lambda r: b"[" * 100_000, "is not JSON"),
        (lambda r: b"\x80\x04\x95pickle", "is not JSON"),
        (lambda r: record_text(r).encode()[:-40], "is not JSON"),
        (lambda r: record_text(r).replace('"gpu1"', '"gpu2"').encode(), "was changed"),
        (lambda r: b'{"a": "' + b"x" * (1 << 24) + b'"}', "a record has at most"),
        (lambda r: damaged(r, trial_key="../../evil"), "must hold the record of"),
        (lambda r: damaged(r, train_key=r.train_key[:16] + "0" * 48), "keys of another trial"),
        (lambda r: forged(r, config={"seed": 7}), "config of another trial"),
        (lambda r: forged(r, hashes={"data": "0" * 64}), "other hashes"),
        (lambda r: forged(r, files={"evil": "0" * 64}), "must name files among"),
        (lambda r: forged(r, files={"../evil": "0" * 64}), "must be names of lower-case"),
        (lambda r: forged(r, files={"best": "../../../etc/passwd"}), "must be a sha256"),
        (lambda r: forged(r, metrics={"test/map_at_r": 7.5}), "test/map_at_r"),
        (lambda r: damaged(r, status="stopped"), "must be finished"),
    ],
)
def test_a_broken_record_is_named_its_trial_runs_and_the_store_is_mended(make, place, content, words):
    first, second = make("first", place, copied=True), make("second", place)
    first.sync.leave_all()
    bad, good = first.plan.trials
    file = place / f"{bad.key}.json"
    file.write_bytes(content(first.records.read(bad.key)))
    plan = second.take()
    assert [trial.key for trial in plan.missing] == [bad.key]
    assert good.key in plan.records
    (named,) = [line for line in second.said if bad.key in line]
    assert words in named
    assert "\n" not in named
    # As if it had run here:
    own = first.records.read(bad.key).model_copy(update={"machine": {"host": "here"}})
    second.records.write(own)
    assert second.sync.leave_all() == 0
    assert parse_record(file.read_bytes(), bad.key) == own


def test_a_broken_record_that_nobody_looked_up_is_replaced_too(make, place, capsys):
    first = make("first", place, copied=True)
    place.mkdir()
    key = first.plan.trials[0].key
    (place / f"{key}.json").write_text("{}")
    first.sync.leave_all()
    assert "replaced" in capsys.readouterr().out
    assert parse_record((place / f"{key}.json").read_bytes(), key).machine == FAR


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_files_are_verified_on_arrival(make, place, damage):
    first, second = (
        make(name, place, copied=name == "first", records_files=True) for name in ("first", "second")
    )
    first.sync.leave_all()
    trial = first.plan.trials[0]
    file = place / "files" / first.records.read(trial.key).files["test"]
    whole = file.read_bytes()
    if damage == "gone":
        file.unlink()
        assert not second.take().missing  # the numbers are there, the files are not
        assert not TrialStore(second.plan.trials[0].store_folder).path("test").exists()
        return
    file.write_bytes(bytes(len(whole)) if damage == "flipped" else whole[:-9])
    assert [t.key for t in second.take().missing] == [trial.key]
    assert any("does not have that sha256" in line for line in second.said)
    assert not second.plan.trials[0].store_folder.exists()
    shutil.copytree(trial.store_folder, second.plan.trials[0].store_folder)
    second.records.write(first.records.read(trial.key))  # as if it had run here
    assert second.sync.leave_all() == 0
    assert file.read_bytes() == whole


def test_nothing_is_read_or_written_through_a_planted_link(make, place, tmp_path):
    first, second = make("first", place, copied=True), make("second", place)
    first.sync.leave_all()
    file = next(place.glob("*.json"))
    outside = file.rename(tmp_path / "outside")
    content = outside.read_bytes()
    file.symlink_to(outside)
    (missing,) = second.take().missing  # it is not even listed
    assert f"{missing.key}.json" == file.name
    with pytest.raises(RecordError, match="is a link"):
        second.sync.team.fetch(missing)
    second.records.write(first.records.read(missing.key).model_copy(update={"machine": {}}))
    assert second.sync.leave_all() == 1
    assert "is a link" in second.said[-1]
    assert outside.read_bytes() == content


def test_what_ended_otherwise_is_not_shared(make, place):
    """A failed trial runs again, a cancelled one is one person's wish, one stopped by a scheduler counts as done."""
    stop = {"stop_early": {"grace_epochs": 1, "reduction_factor": 2}}
    side = make("first", place, **stop)
    (first, second) = side.plan.trials
    side.records.write(make_record(first, status="failed", error="x"))
    side.records.write(make_record(second, status="stopped", error="x", error_type=CANCELLED))
    assert side.sync.leave_all() == 0
    assert side.sync.left == []
    side.records.write(make_record(second, status="stopped", error="at rung 1"))
    side.sync.leave_all()
    assert [path.name for path in place.iterdir()] == [f"{second.key}.stopped.json"]
    assert [t.key for t in make("same", place, **stop).take().missing] == [first.key]
    assert len(make("to the end", place).take().missing) == 2


def test_margins_from_scores_bring_the_embeddings_that_they_need(make, place):
    params = {"positive_margin": {POSITIVES: 0.5}, "negative_margin": {NEGATIVES: 0.05}}
    variants = {"regularizers": [[], [{"name": "tcm", "params": params}]]}
    first = make("first", place, **variants)
    first.run()
    first.run()
    first.sync.leave_all()
    clone = make("clone", place, **variants)
    plan = clone.take()
    assert plan.missing == []
    assert plan.waiting == []
    assert plan.records.keys() == first.plan.records.keys()
    for path in (place / "files").iterdir():
        path.unlink()
    late = make("late", place, **variants)
    assert len(late.take().missing) == 1  # the base alone, as without a store


# ------------------------------------------------------------------------------------------ two at once


def test_of_many_that_write_a_name_at_once_one_does(address, tmp_path):
    team = TeamStore.of(sweep_config(records=address), tmp_path)
    contents = [bytes([65 + number]) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        wrote = list(pool.map(lambda content: team.storage.create("a.json", content), contents))
    found = team.storage.read("a.json")
    assert found in contents
    if not address.startswith("memory"):  # of such stores nothing is promised but whole objects
        assert wrote.count(True) == 1
        assert found == contents[wrote.index(True)]
    assert team.names() == {"a.json"}
    assert not team.storage.create("a.json", b"later")


def test_who_is_second_takes_the_record_of_who_was_first(make, place):
    first, second = make("first", place, copied=True), make("second", place, copied=True)
    second.on("gpu2")
    key = first.plan.trials[0].key
    assert first.sync.leave_all() == 0
    assert second.sync.leave_all() == 0
    assert second.records.read(key).machine == FAR
    assert any("which was first" in line for line in second.said)


def test_a_record_is_not_replaced_by_one_that_vouches_for_other_files(make, place):
    """Another processor may give other bits: with its files the record is taken over, else the own one stays."""
    first = make("first", place, copied=True, records_files=True)
    first.sync.leave_all()
    for files in (False, True):
        second = make(f"second {files}", place, copied=True, records_files=files)
        trial = second.plan.trials[0]
        store = TrialStore(trial.store_folder)
        store.save("test", {"embeddings": torch.ones(2, 2)})
        own = second.records.read(trial.key)
        own = own.model_copy(update={"files": {**own.files, **store.digests}, "machine": {"host": "gpu2"}})
        second.records.write(own)
        assert second.sync.leave_all() == 0
        now = second.records.read(trial.key)
        assert now.machine == (FAR if files else {"host": "gpu2"})
        assert TrialStore(trial.store_folder).matches(now.files)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_two_processes_that_run_the_same_trial_at_once_end_with_one_record(
    tmp_path, small_data, kind, request
):
    prepared = small_data.folder.parent
    address = f"{request.getfixturevalue('s3')}/twice" if kind == "s3" else f"file://{tmp_path}/team"
    folders = [tmp_path / name for name in ("a", "b")]
    logs = [(tmp_path / f"{folder.name}.log").open("wb") for folder in folders]
    processes = []
    for folder, log in zip(folders, logs, strict=True):
        folder.mkdir()
        command = [sys.executable, "-m", "tests.sweep.sharing", folder, prepared, address]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))
    try:
        for folder in folders:  # both train
            Gate(folder / "gate").pid()
        for folder in folders:
            Gate(folder / "gate").open()
        codes = [process.wait(timeout=PATIENCE_SECONDS) for process in processes]
    finally:
        for process, log in zip(processes, logs, strict=True):
            process.kill()
            process.wait(timeout=60)
            log.close()
    texts = [(tmp_path / f"{folder.name}.log").read_text() for folder in folders]
    assert codes == [0, 0], texts
    one, other = (shared_study(folder, prepared, address) for folder in folders)
    assert one.records.all() == other.records.all()
    (record,) = one.records.all()
    team = TeamStore.of(one.config, tmp_path)
    assert parse_record(team.storage.read(f"{record.trial_key}.json"), record.trial_key) == record
    assert team.names() == team.names_of(record)
    for study in (one, other):
        assert TrialStore(study.trials[0].store_folder).matches(record.files)


# ------------------------------------------------------------------------------------------ a store that is not there


def test_a_store_that_refuses_is_said_once_and_gets_all_later(make, monkeypatch):
    port = free_port()
    with s3_environment(port):
        monkeypatch.setattr(team_store, "SECONDS", 3.0)
        side = make("first", "s3://team/later", copied=True)
        side.sync.take(side.plan.trials)
        assert side.sync.leave_all() == 2
        assert len(side.said) == 2
        assert "does not answer" in side.said[0]
        assert "2 trials could not be left" in side.said[1]
        monkeypatch.setattr(team_store, "SECONDS", 30.0)
        with s3_server("team", port):
            assert side.new_sync().leave_all() == 0
            assert not make("clone", "s3://team/later").take().missing


def test_a_store_that_hangs_holds_nobody_up(make, monkeypatch):
    monkeypatch.setattr(team_store, "SECONDS", 0.5)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,  # takes connections and says nothing
        s3_environment(silent.getsockname()[1]),
    ):
        side = make("first", "s3://team/hangs")
        assert len(side.take().missing) == 2
        assert "no answer within" in side.said[0]
        assert side.sync.team.look_up(side.plan.trials[0]) is None
        assert side.sync.team.look_up(side.plan.trials[1]) is None  # without asking again
        assert len(side.sync.team._quiet) == 1


@pytest.mark.slow
def test_a_sweep_goes_on_without_its_store_and_with_one_leaves_what_it_ran(make, place, capsys):
    place.write_text("a file where the folder should be")
    side = make("first", place, regularizers=[[]])
    plan = run_sweep(side.config, side.folders, MemoryTracker())
    assert not plan.missing
    said = capsys.readouterr().out
    assert said.count("does not answer") == 1
    assert "1 trials could not be left" in said
    place.unlink()
    run_sweep(side.config, side.folders, MemoryTracker(), not_called)
    assert [path.name for path in place.iterdir()] == [f"{plan.trials[0].key}.json"]


def test_an_address_of_no_library_is_refused_at_once(make):
    with pytest.raises(ConfigError, match=r"sweep\.records must be an fsspec address"):
        make("first", "nowhere://x")


# ------------------------------------------------------------------------------------------ commands


@pytest.fixture
def checkout(tmp_path, small_data, trained):
    """A checkout with two studies of the same trials: `one` ran them, `two` is a fresh clone."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dvc.yaml").touch()
    (tmp_path / "data" / "prepared").symlink_to(small_data.folder.parent)
    shutil.copytree(trained, tmp_path / "one")
    (tmp_path / "two").mkdir()
    sweep = json.loads(
        sweep_config(records="../team", records_files=True).model_dump_json(exclude_defaults=True)
    )
    for name in ("one", "two"):
        (tmp_path / name / "params.yaml").write_text(yaml.safe_dump({"sweep": sweep}))
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_commands_carry_trials_from_study_to_study(checkout):
    one, two = (checkout / name for name in ("one", "two"))
    shown = call("plan", "--study", one).output
    assert "has 0 of 2 trials, 0 of the 0 to run" in shown
    assert "(ran on gpu1)" in shown
    done = call("records", "push", "--study", one)
    assert (done.exit_code, "2 records left" in done.output) == (0, True)
    assert "0 records left" in call("records", "push", "--study", one).output
    assert "has 2 of 2 trials, 2 of the 2 to run" in call("plan", "--study", two).output
    assert "has 2 finished trials, 0 of them recorded here" in call("status", "--study", two).output
    done = call("records", "pull", "--no-files", "--study", two)
    assert done.exit_code == 0, done.output
    assert done.output.count("ran on gpu1") == 3
    assert not (two / "state" / "storage").exists()
    status = json.loads(call("status", "--study", two, "--json").output)
    assert (status["store"]["trials"], status["store"]["of_those_here"]) == (2, 2)
    done = call("records", "pull", "--study", two)
    assert done.exit_code == 0, done.output
    assert "0 records fetched" in done.output
    assert len(list((two / "state" / "storage").glob("*/test.safetensors"))) == 2
    assert call("check", "--study", two).exit_code == 0


def test_commands_say_what_is_wrong(checkout):
    one, two = (checkout / name for name in ("one", "two"))
    assert call("records", "push", "--study", checkout).exit_code == WRONG_INPUT
    refused = call("records", "pull", "--study", two, "--address", "nowhere://x")
    assert (refused.exit_code, "must be an fsspec address" in refused.output) == (WRONG_INPUT, True)
    (checkout / "team").write_text("no folder")
    for command in ("push", "pull"):
        done = call("records", command, "--study", one)
        assert (done.exit_code, done.output.count("does not answer")) == (INCOMPLETE, 1), done.output
    assert "does not answer" in call("status", "--study", one).output
    assert "does not answer" in call("plan", "--study", one).output
    params = yaml.safe_load((one / "params.yaml").read_text())
    del params["sweep"]["records"]
    (one / "params.yaml").write_text(yaml.safe_dump(params))
    assert call("records", "push", "--study", one).exit_code == WRONG_INPUT
    assert json.loads(call("status", "--study", one, "--json").output)["store"] is None
