"""Changed or removed data sets and stored files: a sweep refuses the one, `dmlcore check --deep` names both."""

from __future__ import annotations

import os
import shutil

import pytest
import yaml
from typer.testing import CliRunner

from dmlcore.cli import app
from dmlcore.core.errors import DataError
from dmlcore.data.dataset import IMAGES, MANIFEST, SUMMARY, PreparedDataset
from dmlcore.data.verification import verify_once
from dmlcore.sweep.run import SweepFolders, run_sweep
from tests.memory_tracker import MemoryTracker
from tests.sweep.sweeps import run_here, sweep_config


@pytest.fixture
def folders(tmp_path, small_data):
    """A checkout with its own copy of the data set; the study is `study`."""
    prepared = tmp_path / "data" / "prepared"
    shutil.copytree(small_data.folder, prepared / "small")
    (tmp_path / "data" / "dvc.yaml").write_text("stages: {}\n")
    study = tmp_path / "study"
    study.mkdir()
    sweep = sweep_config().model_dump(mode="json", exclude_defaults=True)
    (study / "params.yaml").write_text(yaml.safe_dump({"sweep": sweep}))
    return SweepFolders(study, prepared)


def flip(path, position=-20):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def check(folders, *options):
    done = CliRunner().invoke(app, ["check", "--study", str(folders.study), *options])
    return done.exit_code, done.output


def test_a_flipped_byte_of_the_images_ends_the_sweep_before_its_first_trial(folders):
    run_here(sweep_config(), folders, MemoryTracker())
    run_sweep(sweep_config(), folders, MemoryTracker())
    flip(folders.prepared / "small" / IMAGES)
    more = sweep_config(seeds=[0, 1])
    with pytest.raises(
        DataError, match=r"images\.bin or class_texts\.json was changed since it was prepared"
    ):
        run_sweep(more, folders, MemoryTracker())
    assert len(list(folders.records.glob("*.json"))) == 2
    code, output = check(folders, "--deep")
    assert code == 1
    assert "DAMAGED data set small" in output


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (MANIFEST, lambda path: flip(path)),
        (MANIFEST, lambda path: flip(path, 200)),
        (SUMMARY, lambda path: path.write_text(path.read_text()[:100])),
        (SUMMARY, lambda path: path.write_text("[]")),
        (SUMMARY, lambda path: path.write_text(path.read_text().replace('"data_hash"', '"hash"'))),
    ],
)
def test_a_damaged_manifest_or_summary_is_told_in_a_line(folders, name, change):
    change(folders.prepared / "small" / name)
    with pytest.raises(DataError, match=str(folders.prepared)):
        run_sweep(sweep_config(), folders, MemoryTracker())


def test_data_is_hashed_once_until_a_size_or_time_changes(folders, tmp_path):
    data, known = PreparedDataset.open(folders.prepared / "small"), tmp_path / "known.json"
    images = data.folder / IMAGES
    verify_once(data, known)
    before = images.stat()
    flip(images)
    os.utime(images, ns=(before.st_atime_ns, before.st_mtime_ns))
    verify_once(data, known)  # neither size nor time: found by `check --deep` alone
    os.utime(images)
    with pytest.raises(DataError, match="was changed"):
        verify_once(data, known)
    flip(images)
    known.write_text("{")
    verify_once(data, known)


def test_the_deep_check_says_what_is_gone_and_what_was_changed(folders):
    first, second = run_here(sweep_config(), folders, MemoryTracker())
    code, output = check(folders)
    assert code == 0
    assert output.startswith("2 of 2 trials are finished (")
    assert check(folders, "--deep")[0] == 0
    storage = folders.state / "storage"
    shutil.rmtree(storage / first.train_key[:16])
    flip(storage / second.train_key[:16] / "best.safetensors")
    before = {path: path.stat().st_mtime_ns for path in folders.state.rglob("*")}
    code, output = check(folders, "--deep")
    assert code == 1
    assert output.count(f"GONE {first.trial_key}") == 3
    assert output.count(f"DAMAGED {second.trial_key}") == 1
    assert "4 stored files or data sets are gone or damaged" in output
    assert {path: path.stat().st_mtime_ns for path in folders.state.rglob("*")} == before


def test_the_check_names_a_changed_record(folders):
    record, _ = run_here(sweep_config(), folders, MemoryTracker())
    path = folders.records / f"{record.trial_key}.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    code, output = check(folders)
    assert code == 1
    assert f"DAMAGED {record.trial_key}" in output
    assert "1 of 2 trials are finished" in output
    assert path.is_file()
