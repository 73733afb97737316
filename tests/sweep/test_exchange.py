"""What passes through `sweep.cluster.storage` is verified on arrival: data, weights, records, lists, links."""

from __future__ import annotations

import json
from dataclasses import replace

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from dmlcore.core.hashing import file_sha256
from dmlcore.core.io import write_atomically
from dmlcore.data.dataset import IMAGES
from dmlcore.records import RecordFolder, record_text
from dmlcore.sweep import file_store
from dmlcore.sweep.execution.worker import ATTEMPTS, attempts_at, make_record
from dmlcore.sweep.file_store import SharedStorageError
from dmlcore.sweep.ray.arrivals import fetch_data, fetch_weights
from dmlcore.sweep.ray.remote_worker import download_results, localize, run_remote, scratch, upload_inputs
from dmlcore.sweep.ray.shared_storage import COMPLETE, SharedStorage
from dmlcore.sweep.ray.signals import StopSignals
from dmlcore.sweep.run import SweepFolders
from dmlcore.training.checkpoint import load_training_state
from dmlcore.training.run import run_trial
from dmlcore.training.store import TrialStore
from tests.sweep.sweeps import not_called, plan_of, sweep_config, worker_context

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def folders(tmp_path, small_data):
    return SweepFolders(tmp_path / "study", small_data.folder.parent)


@pytest.fixture
def trial(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("DMLCORE_SCRATCH", str(tmp_path / "scratch"))
    return plan_of(sweep_config(regularizers=[[]]), folders).missing[0]


@pytest.fixture
def place(tmp_path):
    return tmp_path / "exchange"


@pytest.fixture
def storage(trial, place):
    found = SharedStorage(f"file://{place}")
    upload_inputs([trial], found)
    return found


def data_folder(trial, place):
    return place / "data" / trial.keys.inputs["data"]


def test_data_with_zeroed_pixels_is_refused_and_replaced_by_the_next_sweep(trial, storage, place):
    images = data_folder(trial, place) / IMAGES
    whole = images.read_bytes()
    images.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    # The list goes with the refusal: a second trial finds no data there, and the next sweep uploads it again.
    for words in ("is not the data set of that hash", "missing or incomplete"):
        with pytest.raises(SharedStorageError, match=words):
            localize(trial, scratch(storage.address), storage)
    upload_inputs([trial], storage)
    assert images.read_bytes() == whole
    local = localize(trial, scratch(storage.address), storage)
    assert (local.data_folder / IMAGES).read_bytes() == whole


def test_a_copy_of_an_earlier_sweep_that_was_damaged_is_fetched_again(trial, storage):
    home = scratch(storage.address)
    images = localize(trial, home, storage).data_folder / IMAGES
    whole = images.read_bytes()
    images.write_bytes(bytes(len(whole)))
    assert (localize(trial, home, storage).data_folder / IMAGES).read_bytes() == whole


def test_another_whole_data_set_under_that_hash_is_refused(trial, storage, tmp_path):
    with pytest.raises(SharedStorageError, match="missing or incomplete"):
        fetch_data("0" * 64, tmp_path / "x", tmp_path, storage)
    storage.put_folder(sorted(trial.data_folder.iterdir()), f"data/{'0' * 64}")
    with pytest.raises(SharedStorageError, match="its hash is"):
        fetch_data("0" * 64, tmp_path / "x", tmp_path, storage)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[1]",
        b"null",
        b'{"images.bin": "many"}',
        b'{"images.bin": null}',
        b'{"../../outside": 3}',
        b'{"/etc/x": 3}',
        b"\xff",
    ],
)
def test_a_malformed_list_of_files_is_refused_in_a_line_and_written_anew(trial, storage, place, content):
    listed = data_folder(trial, place) / COMPLETE
    listed.write_bytes(content)
    with pytest.raises(SharedStorageError, match=r"remove data/\w+ there") as refused:
        localize(trial, scratch(storage.address), storage)
    assert "\n" not in str(refused.value)
    upload_inputs([trial], storage)
    localize(trial, scratch(storage.address), storage)


def test_weights_are_verified_on_arrival(storage, tmp_path):
    file, here = tmp_path / "w.pth", tmp_path / "node" / "w.pth"
    file.write_bytes(b"weights")
    storage.put(file, "weights/w.pth")
    fetch_weights(here, file_sha256(file), storage)
    storage.write("weights/w.pth", b"others!")
    here.write_bytes(b"damaged")
    with pytest.raises(SharedStorageError, match="does not have that sha256"):
        fetch_weights(here, file_sha256(file), storage)
    assert not here.exists()
    assert storage.names("weights") == []  # the next sweep uploads it again


def invented(trial, **changes):
    metrics = {"test/map_at_r": 0.99, "validation/map_at_r": 0.99}
    return make_record(trial, status="finished", metrics=metrics).model_copy(update=changes)


def other(trial, **labels):
    return trial.cell.labels | labels


@pytest.mark.parametrize(
    "changes",
    [
        lambda trial: {},  # no files
        lambda trial: {"files": {"test": "0" * 64}},
        lambda trial: {"labels": other(trial, seed=7)},
        lambda trial: {"labels": other(trial, surprise="x"), "status": "stopped"},
        lambda trial: {"config": {"dataset": "small"}, "status": "stopped"},
        lambda trial: {"eval_key": trial.keys.eval[:8] + "0" * 56, "status": "stopped"},
        lambda trial: {"metrics": {"test/map_at_r": 7.5}, "status": "failed"},
        lambda trial: {"trial_key": "../../evil"},
    ],
)
def test_an_invented_record_is_taken_neither_by_the_driver_nor_by_a_node(trial, storage, folders, changes):
    def leave():
        record = invented(trial, **changes(trial))
        storage.write(f"records/{trial.key}.json", record_text(record).encode())

    leave()
    records = RecordFolder(folders.records)
    assert download_results(trial, storage, records) is None
    assert storage.names("records") == []
    assert records.keys() == []
    leave()
    context = replace(worker_context(folders), run=not_called)
    assert run_remote(trial, context, lambda report: None, storage).status == "failed"  # it was run


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[" * 100_000, b"\xff\x00"])
def test_a_malformed_record_is_removed(trial, storage, folders, content):
    storage.write(f"records/{trial.key}.json", content)
    assert download_results(trial, storage, RecordFolder(folders.records)) is None
    assert storage.names("records") == []


def test_files_that_do_not_match_replace_nothing_here(trial, storage, folders):
    """The study may hold the files of this training, evaluated in another way."""
    mine = TrialStore(trial.store_folder).path("test")
    write_atomically(mine, b"mine")
    for name in ("best", "validation", "test"):
        storage.write(f"storage/{trial.keys.train[:16]}/{name}.safetensors", b"junk")
    record = invented(trial, files=dict.fromkeys(("best", "validation", "test"), "0" * 64))
    storage.write(f"records/{trial.key}.json", record_text(record).encode())
    assert download_results(trial, storage, RecordFolder(folders.records)) is None
    assert mine.read_bytes() == b"mine"
    assert [path.name for path in trial.store_folder.parent.iterdir()] == [trial.store_folder.name]


@pytest.mark.parametrize("content", [b"", b"two", b"\xff", b"9" * 5000, b"-3"])
def test_a_damaged_count_of_attempts_counts_as_none(tmp_path, content):
    (tmp_path / ATTEMPTS).write_bytes(content)
    assert attempts_at(tmp_path) == 0
    (tmp_path / ATTEMPTS).write_bytes(b"3\n")
    assert attempts_at(tmp_path) == 3
    (tmp_path / ATTEMPTS).unlink()
    (tmp_path / ATTEMPTS).mkdir()
    assert attempts_at(tmp_path) == 0


def test_a_planted_link_is_not_followed(storage, place, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    victim = outside / "victim"
    victim.write_text("mine")
    (place / "records").mkdir()
    (place / "records" / "a.json").symlink_to(victim)
    (place / "stop").symlink_to(outside)
    for act in (
        lambda: storage.write("records/a.json", b"x"),
        lambda: storage.write("stop/victim", b"x"),
        lambda: storage.read("records/a.json"),
        lambda: storage.get("stop/victim", tmp_path / "copy"),
        lambda: storage.remove("stop/victim"),
        lambda: storage.names("stop"),
    ):
        with pytest.raises(SharedStorageError, match="is a link"):
            act()
    assert victim.read_text() == "mine"
    assert [path.name for path in outside.iterdir()] == ["victim"]
    linked = tmp_path / "linked"
    linked.symlink_to(place)
    listed = f"data/{next((place / 'data').iterdir()).name}/{COMPLETE}"
    assert json.loads(
        SharedStorage(f"file://{linked}").read(listed) or b""
    )  # the storage itself may be a link


class Refusing(MemoryFileSystem):
    """An object store that refuses its next calls, with an error of its own package as botocore's are."""

    protocol = "refusing"
    calls_to_refuse = 0

    class RefusedError(Exception):
        pass

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("refusing://", "memory://"))


def _refusable(name):
    plain = getattr(MemoryFileSystem, name)

    def call(self, *arguments, **named):
        if Refusing.calls_to_refuse:
            Refusing.calls_to_refuse -= 1
            raise Refusing.RefusedError("connection refused\nand more")
        return plain(self, *arguments, **named)

    return call


for _name in ("put_file", "get_file", "pipe_file", "cat_file", "ls", "exists", "rm"):
    setattr(Refusing, _name, _refusable(_name))


@pytest.fixture
def object_store(tmp_path, monkeypatch):
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    monkeypatch.setattr(file_store, "PAUSE_SECONDS", 0.01)
    Refusing.calls_to_refuse = 0
    yield SharedStorage(f"refusing://{tmp_path.name}", patience_seconds=5.0)
    Refusing.calls_to_refuse = 0


def test_an_object_store_that_is_out_is_asked_again(object_store, tmp_path):
    here = tmp_path / "here"
    here.write_bytes(b"content")
    for act, expected in (
        (lambda: object_store.put(here, "a/file"), None),
        (lambda: object_store.read("a/file"), b"content"),
        (lambda: object_store.get("a/file", tmp_path / "copy"), True),
        (lambda: object_store.names("a"), ["file"]),
        (lambda: object_store.remove("a"), None),
        (lambda: object_store.read("a/file"), None),
    ):
        Refusing.calls_to_refuse = 3
        assert act() == expected
        assert Refusing.calls_to_refuse == 0
    assert (tmp_path / "copy").read_bytes() == b"content"


def test_what_may_fail_does_not_wait_for_it(object_store):
    Refusing.calls_to_refuse = 10
    with pytest.raises(SharedStorageError, match=r"does not answer: connection refused$"):
        object_store.at_once.read("a/file")
    assert Refusing.calls_to_refuse == 9


def test_a_trial_goes_on_where_its_signals_cannot_be_read(object_store, trial):
    signals = StopSignals(object_store)
    signals.cancel(trial.key, "cancelled by me")
    Refusing.calls_to_refuse = 1
    signals.check_cancelled(trial)
    with pytest.raises(Exception, match="cancelled by me"):
        signals.check_cancelled(trial)


def test_a_checkpoint_is_sent_when_it_is_written(trial, folders, storage, tmp_path, monkeypatch):
    """A node that is lost in the epoch after a checkpoint loses that epoch alone."""
    begun_at = []

    def run(config, data, *, store, report, **options):
        state = load_training_state(store)
        begun_at.append(state and state[0].epoch)

        def lost_in_the_second_epoch(epoch):
            if epoch.epoch == 2 and len(begun_at) == 1:
                raise KeyboardInterrupt
            report(epoch)

        return run_trial(
            config, data, store=store, report=lost_in_the_second_epoch, checkpoint_seconds=0.0, **options
        )

    context = replace(worker_context(folders), run=run)
    with pytest.raises(KeyboardInterrupt):
        run_remote(trial, context, lambda report: None, storage)
    monkeypatch.setenv("DMLCORE_SCRATCH", str(tmp_path / "another node"))
    run_remote(trial, context, lambda report: None, storage)
    assert begun_at == [None, 1]
