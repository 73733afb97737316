"""The `dmlcore` command: the same numbers as the library, and errors as a line and an exit code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from dmlcore.cli import ErrorReportingGroup, app
from dmlcore.cli.options import DEFECT, WRONG_INPUT
from dmlcore.metrics.evaluation import evaluate

runner = CliRunner()
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def files(tmp_path):
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 6)
    embeddings = random.normal(size=(12, 8))[labels] + 0.8 * random.normal(size=(72, 8))
    np.save(tmp_path / "e.npy", embeddings)
    np.save(tmp_path / "l.npy", labels)
    return tmp_path, embeddings, labels


def call(*arguments):
    return runner.invoke(app, [str(argument) for argument in arguments])


def test_evaluate_prints_and_writes_the_numbers_of_the_library(files):
    folder, embeddings, labels = files
    out, plot = folder / "m.json", folder / "u.png"
    done = call(
        "evaluate",
        "--embeddings",
        folder / "e.npy",
        "--labels",
        folder / "l.npy",
        "--json",
        out,
        "--plot",
        plot,
    )
    assert done.exit_code == 0, done.output
    expected = evaluate(embeddings, labels).metrics
    assert json.loads(out.read_text()) == pytest.approx(expected, nan_ok=True)
    assert f"{expected['opis']:.6g}" in done.output
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("fault", ["missing", "pickle", "shape"])
def test_bad_files_are_refused_in_a_line(files, fault):
    folder, _, labels = files
    target = folder / "e.npy"
    if fault == "missing":
        target.unlink()
    elif fault == "pickle":
        np.save(target, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    else:
        np.save(target, np.zeros((len(labels) + 1, 2)))
    done = call("evaluate", "--embeddings", target, "--labels", folder / "l.npy")
    assert done.exit_code == WRONG_INPUT
    assert "Traceback" not in done.output
    assert "dmlcore:" in done.output


@pytest.mark.parametrize("command", ["plan", "check", "summary", "export"])
def test_a_folder_that_is_no_study_is_refused(tmp_path, command):
    done = call(command, "--study", tmp_path)
    assert done.exit_code == WRONG_INPUT
    assert "params" in done.output


def test_the_summary_of_a_study_without_report_names_its_table_of_trials_alone(tmp_path):
    shutil.copytree(ROOT / "studies/pretraining", tmp_path / "s", ignore=shutil.ignore_patterns("state"))
    done = call("summary", "--study", tmp_path / "s")
    assert done.exit_code == 0, done.output
    assert "tradeoff.png" not in done.output
    assert (tmp_path / "s/results/trials.parquet").is_file()
    assert done.output.count("trials.parquet") == 1


def test_the_traceback_is_shown_to_who_asks(tmp_path, monkeypatch):
    assert "Traceback" not in call("plan", "--study", tmp_path).output
    assert "Traceback" in call("--traceback", "plan", "--study", tmp_path).output
    monkeypatch.setenv("DMLCORE_TRACEBACK", "1")
    asked = call("plan", "--study", tmp_path)
    assert "Traceback" in asked.output
    assert asked.exit_code == WRONG_INPUT


@pytest.mark.parametrize(
    ("error", "code"), [(ValueError("a"), WRONG_INPUT), (KeyError("a"), DEFECT), (typer.Exit(1), 1)]
)
def test_an_error_of_a_subcommand_becomes_an_exit_code(error, code):
    broken = typer.Typer(cls=ErrorReportingGroup)

    @broken.callback()
    def main():
        pass

    @broken.command()
    def fail():
        raise error

    done = runner.invoke(broken, ["fail"])
    assert done.exit_code == code
    assert "Traceback" not in done.output
    assert ("unexpected KeyError" in done.output) == (code == DEFECT)


def test_data_sets_are_listed_with_licence_origin_and_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.delenv("DMLCORE_ARCHIVES", raising=False)
    root = Path(__file__).resolve().parents[2]
    (tmp_path / "data").mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(root / "data" / name, tmp_path / "data")
    shutil.copytree(root / "data/sources", tmp_path / "data/sources")
    done = call("data", "list", "--study", tmp_path)
    assert done.exit_code == 0, done.output
    for text in (
        "cub200: 11,788 images, 200 classes",
        "licence: research use",
        "origin:  Caltech: https://data.caltech.edu/records/65de6-vp158",
        "here:    missing: CUB_200_2011.tgz (1,151 MB, download)",
        "sop: 120,053 images, 22,634 classes",
        "inaturalist2018: 461,939 images, 8,142 classes",
        "inshop: 52,712 images, 7,982 classes",
        "glyphs: counted once prepared",
    ):
        assert text in done.output


def test_help_loads_no_heavy_library():
    heavy = {"torch", "ray", "mlflow", "polars", "numpy", "scipy"}
    commands = ["evaluate", "calibrate", "monitor"]
    code = "import sys; from dmlcore.cli import app\n"
    code += f"for name in {commands}: app([name, '--help'], standalone_mode=False)\n"
    code += f"print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("Usage:") == 3
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "command",
    [
        "plan",
        "sync",
        "ui",
        "check",
        "evaluate",
        "summary",
        "calibrate",
        "monitor",
        "reevaluate",
        "data list",
        "embed",
        "export",
        "publish",
    ],
)
def test_every_command_explains_itself(command):
    done = call(*command.split(), "--help")
    assert done.exit_code == 0
    assert "Example:" in done.output
