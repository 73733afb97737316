"""Trial records: whole or not there, corrupt ones set aside, and a table that depends on nothing else."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import polars as pl
import pytest

from dmlcore.core.io import write_atomically
from dmlcore.core.sealed_json import finite, sealed
from dmlcore.records import NewerRecordError, RecordError, RecordFolder, TrialRecord
from dmlcore.sweep.table import trials_table

A, B, C = (f"{letter * 16}-{letter * 8}" for letter in "abc")


def record(key: str = A, **changes: object) -> TrialRecord:
    values = {
        "trial_key": key,
        "train_key": key[0] * 64,
        "eval_key": key[0] * 64,
        "status": "finished",
        "config": {"loss": {"name": "smooth_ap"}, "seed": 0, "evaluation": {"ks": [1, 2]}},
        "metrics": {"test/opis": 0.01, "test/map_at_r": 0.432, "test/opis_corrected": -0.0001},
        "curve": [{"validation/map_at_r": 0.25, "train/loss": None}],
        "utility": {"mean": [0.5, 0.6]},
    }
    return TrialRecord.model_validate(values | changes)


def test_round_trip(tmp_path):
    folder = RecordFolder(tmp_path)
    folder.write(record())
    assert folder.read(A) == record()
    assert folder.read(B) is None
    assert folder.all() == [record()]


def test_no_temporary_file_is_left(tmp_path):
    RecordFolder(tmp_path).write(record())
    assert [path.name for path in tmp_path.iterdir()] == [f"{A}.json"]


def test_nan_and_infinity_become_null():
    assert finite({"a": float("nan"), "b": float("inf"), "c": 1.0}) == {"a": None, "b": None, "c": 1.0}


def edited(folder, change):
    """Write a record and change its text, as with an editor."""
    folder.write(record())
    text = folder.path(A).read_text()
    assert change(text) != text
    folder.path(A).write_text(change(text))


def forged(folder, **changes):
    """Write a record with values of any kind and the checksum that belongs to them."""
    values = json.loads(record().model_dump_json()) | {"schema_version": 2, "written_by": "0"}
    folder.path(A).write_text(sealed(values | changes))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema_version": 1}', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_record_is_set_aside(tmp_path, content):
    folder = RecordFolder(tmp_path)
    folder.path(A).write_bytes(content)
    with pytest.raises(RecordError):
        folder.read(A)
    assert folder.read_or_set_aside(A) is None
    assert (tmp_path / f"{A}.json.corrupt").read_bytes() == content
    assert folder.read(A) is None
    folder.path(A).write_bytes(b"another")
    folder.read_or_set_aside(A)
    assert (tmp_path / f"{A}.json.corrupt").read_bytes() == content
    assert (tmp_path / f"{A}.json.corrupt2").read_bytes() == b"another"


@pytest.mark.parametrize(
    ("old", "new"), [("0.432", "0.433"), ("smooth_ap", "triplet"), ("0.25", "0.26"), ("0.6", "0.7")]
)
def test_one_changed_digit_is_noticed(tmp_path, old, new):
    folder = RecordFolder(tmp_path)
    edited(folder, lambda text: text.replace(old, new, 1))
    with pytest.raises(RecordError, match="was changed since it was written"):
        folder.read(A)


def test_layout_and_order_are_no_change(tmp_path):
    folder = RecordFolder(tmp_path)
    edited(folder, lambda text: json.dumps(json.loads(text), sort_keys=True))
    assert folder.read(A) == record()


def test_a_record_without_a_checksum_is_refused(tmp_path):
    """An invented one, or one of schema version 1."""
    folder = RecordFolder(tmp_path)
    values = json.loads(record().model_dump_json())
    folder.path(A).write_text(json.dumps(values | {"schema_version": 2}))
    with pytest.raises(RecordError, match="has no checksum"):
        folder.read(A)
    folder.path(A).write_text(json.dumps(values | {"schema_version": 1}))
    with pytest.raises(RecordError, match="must have schema version 2, it has 1"):
        folder.read(A)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metrics": {"test/map_at_r": 7.5}}, "`test/map_at_r` must be 0 to 1, got 7.5"),
        ({"metrics": {"test/recall_at_1": -0.1}}, "must be 0 to 1"),
        ({"curve": [{"validation/opis_corrected": 1.5}]}, "must be -1 to 1"),
        ({"utility": {"mean": [0.5, 1.5]}}, "`mean` must be 0 to 1"),
        ({"metrics": {"test/distance_max": 2.5}}, "must be 0 to 2"),
        ({"train_key": "../../../evil"}, r"`train_key` must be a sha256 .*'\.\./\.\./\.\./evil'"),
        ({"train_key": "b" * 64}, "must begin like train_key and eval_key"),
        ({"trial_key": B}, "must hold the record of a"),
        ({"files": {"../test": "0" * 64}}, "names of lower-case letters"),
        ({"files": {"test": "../x"}}, "must be a sha256"),
        ({"config": {"dataset": "../../etc"}}, "must be the name of a data set"),
        ({"config": {"dataset": 3}}, "must be the name of a data set"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_no_trial_can_give_is_refused_whatever_its_checksum(tmp_path, changes, words):
    folder = RecordFolder(tmp_path)
    forged(folder, **changes)
    with pytest.raises(RecordError, match=words):
        folder.read(A)


@pytest.mark.parametrize("number", ["NaN", "1e400", "-Infinity"])
def test_a_number_that_is_not_finite_is_refused(tmp_path, number):
    folder = RecordFolder(tmp_path)
    edited(folder, lambda text: text.replace("0.432", number))
    with pytest.raises(RecordError, match="not finite"):
        folder.read(A)


@pytest.mark.parametrize("key", ["../../../evil", "k", A.upper(), A + "/..", "", f"{A}\n"])
def test_a_key_that_none_can_be_is_no_path(tmp_path, key):
    with pytest.raises(RecordError, match="must be 16 and 8 hexadecimal digits"):
        RecordFolder(tmp_path).path(key)


def test_a_later_schema_version_is_named_with_its_writer_and_stays(tmp_path):
    folder = RecordFolder(tmp_path)
    folder.path(A).write_text(json.dumps({"schema_version": 3, "written_by": "0.9.1", "key": [A]}))
    before = folder.path(A).read_bytes()
    for read in (folder.read, folder.read_or_set_aside):
        with pytest.raises(NewerRecordError, match=r"written by dmlcore 0\.9\.1 in schema version 3"):
            read(A)
    assert [path.name for path in tmp_path.iterdir()] == [f"{A}.json"]
    assert folder.path(A).read_bytes() == before


def test_other_files_of_the_folder_are_left_alone(tmp_path):
    folder = RecordFolder(tmp_path)
    folder.write(record())
    for name in ("notes.json", f"{A} (copy).json", ".hidden.json"):
        (tmp_path / name).write_text("mine")
    folder.path(B).write_text("broken")
    names = {path.name for path in tmp_path.iterdir()}
    records, faults = folder.read_all()
    assert (list(records), list(faults)) == ([A], [B])
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_record_under_another_key_is_refused(tmp_path):
    folder = RecordFolder(tmp_path)
    folder.write(record(A))
    folder.path(A).rename(folder.path(B))
    with pytest.raises(RecordError, match=f"must hold the record of {B}"):
        folder.read(B)


@pytest.mark.parametrize(
    "write",
    [
        "from dmlcore.core.io import write_atomically; write_atomically(path, 'x' * 100_000)",
        "import polars as pl; from dmlcore.sweep.table import table_bytes;"
        "from dmlcore.core.io import write_atomically;"
        "write_atomically(path, table_bytes(pl.DataFrame({'a': range(100_000)})))",
    ],
)
def test_a_full_disk_is_told_and_leaves_the_old_content(tmp_path, write):
    # a file size limit in a process of its own does what a full disk does: the write fails half-way
    path = tmp_path / "record.json"
    path.write_text("old")
    code = (
        "import resource, signal, sys; from pathlib import Path; path = Path(sys.argv[1]);"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        + write
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "DiskFullError" in done.stderr
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_write_atomically_makes_the_folder(tmp_path):
    write_atomically(tmp_path / "a" / "b.txt", "text")
    assert (tmp_path / "a" / "b.txt").read_text() == "text"


def rows(records: dict[str, TrialRecord | None]):
    labels = {"dataset": "glyphs", "backbone": "r", "loss": "smooth_ap", "variant": "baseline", "seed": 0}
    return [(key, labels, record().config, found) for key, found in records.items()]


def test_table_has_a_row_a_planned_trial_sorted_by_key():
    failed = record(B, status="failed", error="TrainingError: nan", metrics={})
    table = trials_table(rows({C: None, B: failed, A: record(A)}))
    assert table["trial_key"].to_list() == [A, B, C]
    assert table["status"].to_list() == ["finished", "failed", "missing"]
    assert table["error"].to_list() == [None, "TrainingError: nan", "not run yet"]
    assert table["test/opis"].to_list() == [0.01, None, None]
    assert table["config/evaluation.ks"].to_list() == [json.dumps([1, 2])] * 3
    assert table["utility/mean"].to_list()[0] == [0.5, 0.6]


def test_table_holds_the_validation_accuracy_by_epoch():
    curve = [{"validation/map_at_r": value, "train/loss": 1.0} for value in (0.1, None, 0.3)]
    table = trials_table(rows({A: record(A, curve=curve), B: record(B, curve=[]), C: None}))
    assert table["curve/validation/map_at_r"].to_list() == [[0.1, None, 0.3], None, None]


def test_table_holds_nothing_of_time_or_machine():
    slow = record(seconds=99.0, machine={"host": "h"}, peak_memory_bytes=5, attempts=3)
    assert trials_table(rows({A: slow})).equals(trials_table(rows({A: record()})))


def test_a_table_of_failures_alone_can_be_written(tmp_path):
    table = trials_table(rows({A: None}))
    table.write_parquet(tmp_path / "t.parquet")
    assert pl.read_parquet(tmp_path / "t.parquet").height == 1


def test_importing_records_imports_neither_ray_nor_mlflow_nor_torch():
    code = "import sys, dmlcore.records; print([m for m in ('ray', 'mlflow', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
