"""Trial records: whole or not there, corrupt ones set aside, and a table that depends on nothing else."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import polars as pl
import pytest

from dmlcore.core.io import write_atomically
from dmlcore.records import RecordError, RecordFolder, TrialRecord, finite, trials_table


def record(key: str = "a" * 16, **changes: object) -> TrialRecord:
    values = {
        "trial_key": key,
        "train_key": "t",
        "eval_key": "e",
        "status": "finished",
        "config": {"loss": {"name": "smooth_ap"}, "seed": 0, "evaluation": {"ks": [1, 2]}},
        "metrics": {"test/opis": 0.01},
        "utility": {"mean": [0.5, 0.6]},
    }
    return TrialRecord.model_validate(values | changes)


def test_round_trip(tmp_path):
    folder = RecordFolder(tmp_path)
    folder.write(record())
    assert folder.read("a" * 16) == record()
    assert folder.read("b" * 16) is None
    assert folder.all() == [record()]


def test_no_temporary_file_is_left(tmp_path):
    RecordFolder(tmp_path).write(record())
    assert [path.name for path in tmp_path.iterdir()] == ["a" * 16 + ".json"]


def test_nan_and_infinity_become_null():
    assert finite({"a": float("nan"), "b": float("inf"), "c": 1.0}) == {"a": None, "b": None, "c": 1.0}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema_version": 2}', b"\xff\xfe"])
def test_a_corrupt_record_is_set_aside(tmp_path, content):
    folder = RecordFolder(tmp_path)
    folder.path("k").write_bytes(content)
    with pytest.raises(RecordError):
        folder.read("k")
    assert folder.read_or_set_aside("k") is None
    assert (tmp_path / "k.json.corrupt").read_bytes() == content
    assert folder.read("k") is None


def test_a_record_under_another_key_is_refused(tmp_path):
    folder = RecordFolder(tmp_path)
    folder.write(record("a"))
    folder.path("a").rename(folder.path("b"))
    with pytest.raises(RecordError, match="must hold the record of b"):
        folder.read("b")


@pytest.mark.parametrize(
    "write",
    [
        "from dmlcore.core.io import write_atomically; write_atomically(path, 'x' * 100_000)",
        "import polars as pl; from dmlcore.records import write_table;"
        "write_table(pl.DataFrame({'a': range(100_000)}), path)",
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
    assert "OSError" in done.stderr
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
    failed = record("b", status="failed", error="TrainingError: nan", metrics={})
    table = trials_table(rows({"c": None, "b": failed, "a": record("a")}))
    assert table["trial_key"].to_list() == ["a", "b", "c"]
    assert table["status"].to_list() == ["finished", "failed", "missing"]
    assert table["error"].to_list() == [None, "TrainingError: nan", "not run yet"]
    assert table["test/opis"].to_list() == [0.01, None, None]
    assert table["config/evaluation.ks"].to_list() == [json.dumps([1, 2])] * 3
    assert table["utility/mean"].to_list()[0] == [0.5, 0.6]


def test_table_holds_the_validation_accuracy_by_epoch():
    curve = [{"validation/map_at_r": value, "train/loss": 1.0} for value in (0.1, None, 0.3)]
    table = trials_table(rows({"a": record("a", curve=curve), "b": record("b"), "c": None}))
    assert table["curve/validation/map_at_r"].to_list() == [[0.1, None, 0.3], None, None]


def test_table_holds_nothing_of_time_or_machine():
    slow = record(seconds=99.0, machine={"host": "h"}, peak_memory_bytes=5, attempts=3)
    assert trials_table(rows({"a": slow})).equals(trials_table(rows({"a": record()})))


def test_a_table_of_failures_alone_can_be_written(tmp_path):
    table = trials_table(rows({"a": None}))
    table.write_parquet(tmp_path / "t.parquet")
    assert pl.read_parquet(tmp_path / "t.parquet").height == 1


def test_importing_records_imports_neither_ray_nor_mlflow_nor_torch():
    code = "import sys, dmlcore.records; print([m for m in ('ray', 'mlflow', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
