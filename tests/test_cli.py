"""The `dmlcore` command: the same numbers as the library, and errors without a traceback."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from dmlcore.cli import app
from dmlcore.metrics import evaluate

runner = CliRunner()


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
    assert done.exit_code == 2
    assert "Traceback" not in done.output
    assert "dmlcore:" in done.output


@pytest.mark.parametrize("command", ["plan", "check", "summary"])
def test_a_folder_that_is_no_study_is_refused(tmp_path, command):
    done = call(command, "--study", tmp_path)
    assert done.exit_code == 2
    assert "params" in done.output


@pytest.mark.parametrize("command", ["plan", "check", "evaluate", "summary"])
def test_every_command_explains_itself(command):
    done = call(command, "--help")
    assert done.exit_code == 0
    assert "Example:" in done.output
