"""Models in MLflow: what they embed is what `dmlcore embed` does, in a process that knows only the store."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from dmlcore.cli import app
from dmlcore.cli.options import INCOMPLETE, WRONG_INPUT
from dmlcore.config.base import parse
from dmlcore.config.trial import TrialConfig
from dmlcore.data.dataset import PreparedDataset
from dmlcore.records import RecordFolder
from dmlcore.tracking import MlflowTracker
from dmlcore.tracking.models import best_trials, find_model, log_best
from dmlcore.tracking.runs import Runs
from dmlcore.training.loader import input_pipeline
from tests.cli.trained import KEY, trained_checkout
from tests.tracking.test_mlflow import record

pytestmark = pytest.mark.filterwarnings("ignore")
PICKLED = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".npy", ".npz"}
PAGE = Path(__file__).resolve().parents[2] / "docs" / "mlflow.md"
BEFORE = "import sys, numpy as np\nimages = np.load(sys.argv[1])\n"
AFTER = """
np.save(sys.argv[2], embeddings)
print(model.metadata.signature, sys.modules["dmlcore"].__file__)
"""


def call(command, *arguments):
    return CliRunner().invoke(app, [command, *map(str, arguments)])


@pytest.fixture(scope="module", params=["frozen", "jpeg"])
def study(request, tmp_path_factory):
    """A checkout whose one trial is published and registered as `m`."""
    root = trained_checkout(tmp_path_factory.mktemp("checkout"), request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        done = call("publish", KEY, "--register", "m", "--study", root)
        assert done.exit_code == 0, done.output
        assert "registered as models:/m/1" in done.output
        yield root


def code_of_the_page(study):
    """What docs/mlflow.md tells its reader to run, on this store and model."""
    code = re.search(r"```py\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    store = f"sqlite:///{study / 'state' / 'mlflow.db'}"
    code = code.replace("sqlite:///state/mlflow.db", store).replace("models:/glyph-embedder/1", "models:/m/1")
    assert store in code
    return BEFORE + code + AFTER


def only_record(study):
    return RecordFolder(study / "state" / "records").all()[0]


def tracker_of(study):
    return MlflowTracker.for_study("drawn", study / "state", None)


def network_input(study):
    """The test images cropped as the network takes them, uint8 [N, S, S, C]."""
    data = PreparedDataset.open(study / "data" / "prepared" / "small")
    config = parse(TrialConfig, only_record(study).config, "trial")
    split = data.split("test")
    return input_pipeline(split, config).evaluation_batch(np.arange(len(split.images))).numpy()


def test_a_registered_model_embeds_as_the_command_does(study, tmp_path):
    images, out = tmp_path / "images.npy", tmp_path / "out.npy"
    np.save(images, network_input(study))
    command = [sys.executable, "-c", code_of_the_page(study), str(images), str(out)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "uint8" in done.stdout
    assert "code/dmlcore/__init__.py" in done.stdout, "the model must bring its own code"
    embedded = tmp_path / "e.npy"
    assert call("embed", study / "images", "--trial", KEY, "--study", study, "--out", embedded).exit_code == 0
    expected = np.load(embedded)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(out), expected, rtol=1e-4, atol=1e-5)


def test_nothing_of_a_model_needs_unpickling(study):
    (folder,) = (study / "state" / "mlflow-artifacts" / "models").glob("*/artifacts")
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert not [name for name in names if Path(name).suffix in PICKLED or "__pycache__" in name]
    assert {"artifacts/weights.safetensors", "input_example.json", "MLmodel", "model_code.py"} <= set(names)


def test_a_model_belongs_to_the_run_of_its_trial_and_is_logged_once(study):
    again = call("publish", KEY, "--register", "m", "--study", study)
    assert "logged before" in again.output
    assert "models:/m/1" in again.output
    runs = tracker_of(study).runs
    found = runs.client.search_logged_models([runs.experiment_id])
    assert [model.source_run_id for model in found] == [runs.find(only_record(study).trial_key).info.run_id]
    assert len(MlflowClient(runs.uri).search_model_versions("name = 'm'")) == 1


def test_the_end_of_a_sweep_logs_the_best_trial_once(study, tmp_path):
    prepared = study / "data" / "prepared"
    runs = Runs(f"sqlite:///{tmp_path / 'db'}", "e", tmp_path / "artifacts", {})
    runs.prepare()
    trial = only_record(study)
    assert log_best(runs, [trial], study, prepared) == [trial.name]
    assert log_best(runs, [trial], study, prepared) == []
    assert find_model(runs, trial).tags["trial_key"] == trial.trial_key


def test_a_model_that_a_killed_process_left_is_replaced_and_not_doubled(study, tmp_path):
    runs = Runs(f"sqlite:///{tmp_path / 'db'}", "e", tmp_path / "artifacts", {})
    runs.prepare()
    trial = only_record(study)
    runs.complete(trial, trial.name)
    run_id = runs.find(trial.trial_key).info.run_id
    runs.client.create_logged_model(runs.experiment_id, "embedder", source_run_id=run_id)
    assert log_best(runs, [trial], study, study / "data" / "prepared") == [trial.name]
    assert len(runs.client.search_logged_models([runs.experiment_id])) == 1


def test_a_store_that_does_not_answer_is_a_warning_in_a_sweep_and_an_error_on_the_command_line(
    study, monkeypatch, caplog
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    runs = Runs("http://127.0.0.1:9", "down", None, {})
    assert log_best(runs, [only_record(study)], study, study / "data" / "prepared") == []
    assert "run `dmlcore publish`" in caplog.text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    done = call("publish", KEY, "--study", study)
    assert done.exit_code == INCOMPLETE
    assert "MLflow at http://127.0.0.1:9 did not take the model" in done.output


def test_a_name_needs_one_trial(study):
    done = call("publish", KEY, KEY, "--register", "m", "--study", study)
    assert done.exit_code == WRONG_INPUT
    assert "--register takes one trial, 2 are chosen" in done.output


def test_the_best_are_chosen_on_validation_per_data_set():
    def trial(key, validation, test, dataset="a", status="finished"):
        metrics = {"validation/map_at_r": validation, "test/map_at_r": test}
        return record(trial_key=key, status=status, config={"dataset": dataset}, metrics=metrics)

    trials = [
        trial("1", 0.2, 0.9), trial("3", 0.4, 0.1), trial("2", 0.4, 0.1), trial("4", None, 1.0),
        trial("5", 0.9, 0.9, status="failed"), trial("6", 0.1, 0.1, dataset="b"),
    ]  # fmt: skip
    assert [best.trial_key for best in best_trials(trials)] == ["2", "6"]
