"""The core alone: its commands need no library of an extra, and what needs one says which, before it does anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import dmlcore
from dmlcore import extras
from dmlcore.calibration import Target, calibrate
from dmlcore.cli import COMMANDS, app
from dmlcore.cli.options import WRONG_INPUT
from dmlcore.extras import EXTRAS, MissingExtraError, modules_of, require
from dmlcore.losses import build_loss
from dmlcore.metrics import evaluate
from tests.calibration.laws import draw

IN_EXTRAS = {*modules_of("pipeline"), "onnx", "pandas", "pillow_heif", "sklearn", "torchmetrics"} - {
    "rich",
    "yaml",
}
"""What the core must not import; typer brings rich, and numba imports yaml where it is installed."""
CORE = "import dmlcore.losses, dmlcore.metrics.evaluation, dmlcore.calibration, dmlcore.cli"


@pytest.fixture
def files(tmp_path):
    """Arrays of a validation and a test split on disk, and the splits."""
    splits = {
        "validation": draw(40, 5, np.random.default_rng(0)),
        "test": draw(30, 4, np.random.default_rng(1)),
    }
    for name, (x, y) in splits.items():
        np.save(tmp_path / f"{name}.npy", x.astype(np.float32))
        np.save(tmp_path / f"{name}_labels.npy", y)
    return splits


@pytest.fixture
def core_alone(monkeypatch):
    """The core without the libraries of the extras, whether they are installed or not."""
    hidden = set(modules_of("pipeline"))
    real = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name in hidden else real(name))


def run(*arguments: object, folder: Path) -> str:
    """Run the installed command; return what it printed."""
    command = [sys.executable, "-c", "from dmlcore.cli import app; app()", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_both_commands_give_the_numbers_of_the_library(files, tmp_path):
    run(
        *("evaluate", "--embeddings", "test.npy", "--labels", "test_labels.npy", "--json", "m.json"),
        folder=tmp_path,
    )
    x, y = files["test"]
    expected = evaluate(x.astype(np.float32), y).metrics
    assert json.loads((tmp_path / "m.json").read_text()) == pytest.approx(expected, nan_ok=True)

    pairs = [f"--{part}={part.replace('-', '_')}.npy" for part in ("validation", "test")]
    pairs += [f"--{part}-labels={part}_labels.npy" for part in ("validation", "test")]
    run("calibrate", "--far", 0.05, *pairs, "--card", "card.json", "--classes", "c.csv", folder=tmp_path)
    splits = [(x.astype(np.float32), y) for x, y in files.values()]
    threshold = calibrate(*splits, Target("far", 0.05)).threshold
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["threshold"]["distance"] == pytest.approx(threshold.distance)
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 31


def test_the_core_imports_no_library_of_an_extra():
    assert run_code(f"import sys; {CORE}; print({IN_EXTRAS} & sys.modules.keys())") == "set()"


def test_the_package_alone_imports_no_library():
    assert run_code("import sys, dmlcore; print({'torch', 'numpy', 'numba'} & sys.modules.keys())") == "set()"


def test_few_images_are_evaluated_without_numba(files, tmp_path):
    """Its start and its first kernels take longer than all else but torch's."""
    files = [
        f"--{name}={tmp_path}/test{end}.npy" for name, end in (("embeddings", ""), ("labels", "_labels"))
    ]
    code = f"import sys; from dmlcore.cli import app; app(['evaluate', *{files}], standalone_mode=False)"
    assert run_code(f"{code}; print({{'numba', 'scipy'}} & sys.modules.keys())").splitlines()[-1] == "set()"


def run_code(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_the_package_hands_on_what_people_start_with():
    assert (dmlcore.evaluate, dmlcore.calibrate, dmlcore.build_loss) == (evaluate, calibrate, build_loss)
    assert dmlcore.losses is sys.modules["dmlcore.losses"]
    assert set(dmlcore.__all__) <= set(dir(dmlcore))
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        dmlcore.train  # noqa: B018


def test_the_version_is_printed():
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"dmlcore {dmlcore.__version__}\n")


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("data", "data list"),
        *(
            (extra, each.__name__.replace("_", "-"))
            for extra in COMMANDS
            if extra
            for each in COMMANDS[extra]
        ),
    ],
)
def test_a_command_without_its_extra_says_which_to_install(core_alone, tmp_path, extra, command):
    arguments = {
        "embed": [str(tmp_path), "--trial", "0"],
        "overview": [str(tmp_path)],
        "export-model": ["0", "--into", str(tmp_path)],
        **{name: ["0"] for name in ("cancel", "logs", "publish")},
    }
    done = CliRunner().invoke(app, [*command.split(), *arguments.get(command, [])])
    assert done.exit_code == WRONG_INPUT, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"dmlcore: `dmlcore {command.split()[0]}` needs ")
    assert line.endswith(f"; run pip install 'dmlcore[{extra}]'")


def test_a_plot_without_matplotlib_is_refused_first(core_alone, files, tmp_path):
    arguments = ["--embeddings", tmp_path / "test.npy", "--labels", tmp_path / "test_labels.npy"]
    outputs = ["--json", tmp_path / "m.json", "--plot", tmp_path / "u.png"]
    done = CliRunner().invoke(app, ["evaluate", *map(str, arguments + outputs)])
    assert done.exit_code == WRONG_INPUT
    assert done.stderr == (
        "dmlcore: --plot needs matplotlib, which is not installed; run pip install 'dmlcore[plot]'\n"
    )
    assert not (tmp_path / "m.json").exists()


ROOMS = {
    "metrics.plot": "plot",
    "calibration.plot": "plot",
    "config": "data",
    "data": "data",
    "datasets": "data",
    "training": "train",
    "sweep": "sweep",
    "tracking": "sweep",
    "analysis": "pipeline",
    "report": "pipeline",
}
IMPORTS = f"""
import importlib
from dmlcore import extras
real, hidden = extras.find_spec, set(extras.modules_of("pipeline"))
extras.find_spec = lambda name: None if name in hidden else real(name)
for room in {list(ROOMS)}:
    try:
        importlib.import_module(f"dmlcore.{{room}}")
    except extras.MissingExtraError as error:
        print(error)
"""


def test_a_room_without_its_extra_says_which_to_install():
    lines = run_code(IMPORTS).splitlines()
    assert len(lines) == len(ROOMS)
    for line, (room, extra) in zip(lines, ROOMS.items(), strict=True):
        needing = "metrics.plot" if extra == "plot" else room
        assert line.startswith(f"dmlcore.{needing} needs matplotlib")
        assert line.endswith(f"; run pip install 'dmlcore[{extra}]'")


def test_losses_of_a_library_that_is_missing_say_so(core_alone):
    with pytest.raises(MissingExtraError, match=r"`pml:NAME` needs pytorch_metric_learning.*\[train\]"):
        build_loss("pml:CircleLoss", num_classes=2, embedding_dim=2)


def test_an_extra_names_all_that_is_missing_of_it(core_alone):
    with pytest.raises(MissingExtraError, match=f"it needs {', '.join(modules_of('data'))}, which are not"):
        require("data", "it")
    assert modules_of("data") == [*EXTRAS["plot"], *EXTRAS["data"]]
    require("data", "it", "json")
