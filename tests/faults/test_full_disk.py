"""A full disk ends a stage or a command in one line, and leaves each set of outputs as it was."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from dmlcore.cli import app
from dmlcore.core.errors import DiskFullError
from dmlcore.datasets.prepare.build import prepare
from dmlcore.report.outputs import write_results
from tests.analysis.synthetic import rows, study
from tests.cli.study import SWEEP
from tests.disks import fill, mounted
from tests.small import SIDE, small_catalogue

ROOT = Path(__file__).resolve().parents[2]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "filler"}


def test_results_stay_those_of_the_run_before(tmp_path):
    found = study(rows(("a",), ("vit",), ("ap",)))
    with mounted(tmp_path / "results", 12_000_000) as results:
        write_results(found, results)
        before = content(results)
        fill(results, 30_000)
        with pytest.raises(DiskFullError):
            write_results(found, results)
        assert content(results) == before


def results_of(folder):
    """A study with results and no trials' files, as in a fresh clone."""
    folder.mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump({"sweep": SWEEP}))
    made = study(rows(("small",), ("tiny",), ("triplet",)))
    (folder / "results").mkdir()
    made.trials.write_parquet(folder / "results" / "trials.parquet")
    (folder / "results" / "datasets.json").write_text(json.dumps(made.datasets))
    return folder


def test_an_export_leaves_all_of_its_files_or_none(tmp_path):
    folder = results_of(tmp_path / "study")
    with mounted(tmp_path / "out", 60_000) as out:
        done = CliRunner().invoke(app, ["export", "--study", str(folder), "--into", str(out)])
        assert done.exit_code == 2
        assert done.stderr.count("\n") == 1
        assert "cannot be written: the disk is full" in done.stderr
        assert content(out) == {}


def test_the_stage_aggregate_ends_in_a_line(tmp_path):
    folder = results_of(tmp_path / "study")
    kept = {path.name: path.read_bytes() for path in (folder / "results").iterdir()}
    with mounted(tmp_path / "disk", 200_000) as disk:
        shutil.copytree(folder, disk / "study")
        command = [sys.executable, str(ROOT / "pipeline" / "aggregate.py"), str(disk / "study")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "aggregate: " in done.stderr.splitlines()[-1]
        assert "the disk is full" in done.stderr.splitlines()[-1]
        assert content(disk / "study" / "results") == kept


def test_a_data_set_is_whole_or_not_there_and_is_resumed(tmp_path):
    from dmlcore.config.data import PreprocessConfig, SplitConfig

    config = PreprocessConfig(image_size=SIDE, split=SplitConfig(test_share=0.34, validation_share=0.25))
    with mounted(tmp_path / "disk", 1_000_000) as disk:
        filler = fill(disk, 20_000)
        with pytest.raises(OSError, match="No space left"):
            prepare("small", small_catalogue(), config, disk / "small")
        assert not (disk / "small").exists()
        filler.unlink()
        prepare("small", small_catalogue(), config, disk / "small")
        assert sorted(content(disk / "small")) == ["dataset.json", "images.bin", "manifest.parquet"]
