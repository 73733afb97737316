"""A trial's keys change with what it depends on and with nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dmlcore.core.code_hash import loss_modules
from dmlcore.losses import LOSSES, REGULARIZERS
from dmlcore.sweep.trial_key import evaluation_code, training_code, trial_keys
from tests.small import small_trial

ROOT = Path(__file__).resolve().parents[2]
SHOW = (
    "from dmlcore.sweep.trial_key import trial_keys; from tests.small import small_trial;"
    "keys = trial_keys(small_trial(loss={'name': 'smooth_ap'}), 'data'); print(keys.train, keys.eval)"
)


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
    assert not [
        name for name in files if name.startswith(("dmlcore/metrics", "dmlcore/report", "dmlcore/config"))
    ]
    assert any(name.startswith("dmlcore/metrics") for name in evaluation_code())


@pytest.fixture
def copy(tmp_path):
    """A copy of the code to edit, and a way to ask it for its keys."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "dmlcore", tmp_path / "dmlcore", ignore=ignore)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").touch()
    shutil.copy(ROOT / "tests" / "small.py", tmp_path / "tests")

    def ask(edit: str = "", old: str = "", new: str = "") -> list[str]:
        if edit:
            path = tmp_path / edit
            text = path.read_text()
            assert old in text
            path.write_text(text.replace(old, new, 1))
        done = subprocess.run(
            [sys.executable, "-c", SHOW], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    return ask


def test_edits_make_stale_what_they_change_and_nothing_else(copy):
    train, evaluation = copy()
    assert copy("dmlcore/report/__init__.py", '"""', '"""New. ') == [train, evaluation]
    assert copy("dmlcore/losses/circle.py", "class Circle", "EXTRA = 1\n\n\nclass Circle") == [
        train,
        evaluation,
    ]
    assert copy("dmlcore/losses/smooth_ap.py", '"""', '"""Another docstring. ') == [train, evaluation]
    assert copy("dmlcore/losses/smooth_ap.py", "import Tensor", "import Tensor  # a comment") == [
        train,
        evaluation,
    ]
    metrics = copy("dmlcore/metrics/__init__.py", '"""', 'EXTRA = 1\n"""')
    assert metrics[0] == train
    assert metrics[1] != evaluation
    loss = copy("dmlcore/losses/smooth_ap.py", "class SmoothAP", "EXTRA = 1\n\n\nclass SmoothAP")
    assert loss[0] != train
