"""A trial's keys change with what it depends on and with nothing else."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import shutil

import pytest
import torch

from dmlcore.losses import LOSSES, REGULARIZERS
from dmlcore.metrics import evaluate, evaluation
from dmlcore.sweep.baselines import NOT_MEASURING
from dmlcore.sweep.trial_key import (
    NOT_CHOOSING,
    NOT_TRAINING,
    evaluation_code,
    training_code,
    trial_keys,
)
from dmlcore.training.code_hash import loss_modules
from dmlcore.training.features import NOT_FEATURES
from tests.small import small_trial


def keys(data="data", **changes):
    return trial_keys(small_trial(**changes), data)


def test_training_changes_change_the_train_key_alone():
    base = keys()
    for other in (keys(seed=1), keys(data="other"), keys(threads=2), keys(loss={"params": {"alpha": 3.0}})):
        assert other.train != base.train
        assert other.eval == base.eval


def test_evaluation_changes_change_the_eval_key_alone():
    other = keys(evaluation={"epsilon": 0.2})
    assert other.train == keys().train
    assert other.eval != keys().eval
    assert other.trial != keys().trial


def test_local_weights_count_by_content(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"1")
    copy = tmp_path / "copy.pth"
    shutil.copy(path, copy)
    found = [keys(model={"backbone": {"weights": str(name)}}).inputs["weights"] for name in (path, copy)]
    assert found[0] == found[1]
    assert found[0] is not None


@pytest.mark.parametrize("name", sorted({*LOSSES, *REGULARIZERS}))
def test_the_file_of_every_loss_is_found(name):
    (module,) = loss_modules(name)
    assert module == (LOSSES.get(name) or REGULARIZERS[name]).__module__


def test_only_the_files_of_the_losses_used_count():
    files = training_code(["smooth_ap", "tcm"])
    assert "dmlcore/losses/smooth_ap.py" in files
    assert "dmlcore/losses/threshold_consistent_margin.py" in files
    assert "dmlcore/losses/circle.py" not in files
    assert "dmlcore/training/run.py" in files
    assert not [name for name in files if name.startswith(("dmlcore/report", "dmlcore/config"))]
    assert any(name.startswith("dmlcore/metrics") for name in evaluation_code())


def edited(source_copy, edit, *arguments):
    """The keys of a trial with `smooth_ap` after an edit of the code."""
    getattr(source_copy, edit)(*arguments)
    found = keys(loss={"name": "smooth_ap"})
    return [found.train, found.eval]


def test_edits_make_stale_what_they_change_and_nothing_else(source_copy):
    unedited = keys(loss={"name": "smooth_ap"})
    base = [unedited.train, unedited.eval]
    assert edited(source_copy, "edit", "dmlcore/report/__init__.py", '"""', '"""New. ') == base
    assert edited(source_copy, "append", "dmlcore/report/__init__.py") == base
    assert edited(source_copy, "append", "dmlcore/losses/circle.py") == base
    smooth_ap = "dmlcore/losses/smooth_ap.py"
    assert edited(source_copy, "edit", smooth_ap, '"""', '"""Another docstring. ') == base
    assert edited(source_copy, "edit", smooth_ap, "import Tensor", "import Tensor  # a comment") == base
    metrics = edited(source_copy, "append", "dmlcore/metrics/consistency.py")
    assert metrics[0] == base[0]
    assert metrics[1] != base[1]
    loss = edited(source_copy, "append", smooth_ap)
    assert loss[0] != base[0]


@pytest.mark.parametrize(
    "file", ["evaluation.py", "inputs.py", "retrieval.py", "pairwise/ranks.py", "pairwise/scan_kernels.py"]
)
def test_the_code_of_the_metric_that_chooses_the_epoch_is_in_the_train_key(source_copy, file):
    base = keys()
    source_copy.append(f"dmlcore/metrics/{file}")
    assert keys().train != base.train
    assert keys().eval != base.eval


def test_map_at_r_does_not_run_through_the_metrics_left_out_of_the_train_key(small_data, monkeypatch):
    """Break every function of the modules left out: MAP@R, which chooses the epoch, must not notice."""
    split = small_data.split("validation")
    embeddings = torch.randn(len(split.labels), 8, generator=torch.Generator().manual_seed(0))
    expected = evaluate(embeddings, split.labels).metrics["map_at_r"]
    found = {}
    ranking = evaluation.retrieval_metrics

    def caught(*arguments):
        found.update(ranking(*arguments))
        raise InterruptedError

    monkeypatch.setattr(evaluation, "retrieval_metrics", caught)
    for name in NOT_CHOOSING:
        module = importlib.import_module(name)
        for function in [key for key, value in vars(module).items() if inspect.isfunction(value)]:
            monkeypatch.setattr(module, function, lambda *_, **__: pytest.fail("MAP@R runs through it"))
    with pytest.raises(InterruptedError):
        evaluate(embeddings, split.labels)
    assert found["map_at_r"] == expected


def test_every_module_left_out_of_a_key_exists():
    for name in {*NOT_TRAINING, *NOT_FEATURES, *NOT_MEASURING}:
        assert importlib.util.find_spec(name), f"{name} was renamed: rename it in the list of exclusions too"


@pytest.mark.parametrize("library", ["torch", "torchvision", "timm"])
def test_the_version_of_a_library_that_decides_bits_is_in_the_train_key(monkeypatch, library):
    base = keys()
    assert base.inputs["versions"][library] in importlib.metadata.version(library)
    real = importlib.metadata.version

    def with_version(text):
        monkeypatch.setattr(
            importlib.metadata, "version", lambda name: text if name == library else real(name)
        )
        return keys()

    other = with_version("98.7.6+cu1")
    assert other.inputs["versions"][library] == "98.7"
    assert other.train != base.train
    assert with_version("98.7.9").train == other.train
