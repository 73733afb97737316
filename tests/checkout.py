"""A checkout for a test: the project's files, a small image folder in place of glyphs, DVC initialised."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import psutil
import yaml
from PIL import Image

from tests.small import SIDE, TRIAL, small_catalogue

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("dmlcore", "pipeline", "dvc.yaml", "data/dvc.yaml", "data/weights", ".dvcignore")
SWEEP: dict[str, Any] = {
    "study": "test",
    "datasets": ["glyphs"],
    "seeds": [0, 1, 2],
    "backbones": {"resnet": {"model": TRIAL["model"]}},
    "losses": {"ms": {"loss": {"name": "multi_similarity"}}},
    "regularizers": [[], [{"name": "tcm"}]],
    "trial": {"train": TRIAL["train"] | {"epochs": 3, "batches_per_epoch": 12}},
}


class Checkout:
    """The project in a separate folder, and the commands that a user would type there."""

    def __init__(self, folder: Path, git: bool = False) -> None:
        self.folder = folder
        self.extra: dict[str, str] = {}
        for name in COPIED:
            _copy(ROOT / name, folder / name)
        _write_images(folder / "photographs")
        split = {"rule": "hashed", "test_share": 0.34, "validation_share": 0.25}
        data = {"kind": "image_folder", "source": "../photographs"}
        datasets = {"glyphs": data | {"preprocess": _section(split)}}
        self.write("data/params.yaml", {"datasets": datasets})
        self.params: dict[str, Any] = {"sweep": dict(SWEEP), "aggregate": {"confidence": 0.95}}
        self.write("params.yaml", self.params)
        if git:
            _copy(ROOT / ".gitignore", folder / ".gitignore")
            self.git("init", "--quiet")
        self.dvc("init", "--quiet", *([] if git else ["--no-scm"]))

    @classmethod
    def at(cls, folder: Path, params: dict[str, Any]) -> Checkout:
        """Return the checkout that is in `folder`: a clone or worktree of another."""
        found = cls.__new__(cls)
        found.folder, found.params, found.extra = folder, deepcopy(params), {}
        return found

    @property
    def environment(self) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
        return inherited | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "DVC_SITE_CACHE_DIR": str(self.folder / ".site"),
            "DVC_NO_ANALYTICS": "true",
            **self.extra,
        }

    def write(self, name: str, values: dict[str, Any]) -> None:
        (self.folder / name).write_text(yaml.safe_dump(values), encoding="utf-8")

    def git(self, *arguments: str) -> None:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, timeout=60)

    def dvc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `dvc ...` in the background, its output in dvc.log."""
        with (self.folder / "dvc.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dvc", *arguments],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def records(self) -> dict[str, bytes]:
        return {
            path.name: path.read_bytes() for path in (self.folder / "state" / "records").glob("[!.]*.json")
        }


def stage_process(process: subprocess.Popen[bytes], script: str) -> psutil.Process:
    """Find the process of a stage below a running `dvc repro`."""
    for child in psutil.Process(process.pid).children(recursive=True):
        command = child.cmdline()
        if any(part.endswith(script) for part in command) and "python" in command[0]:
            return child
    raise LookupError(f"no {script} below {process.pid}")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _section(split: dict[str, Any]) -> dict[str, Any]:
    return {"image_size": SIDE, "split": split}


def _write_images(folder: Path) -> None:
    catalogue = small_catalogue()
    for item in catalogue.items:
        path = folder / item.class_name / f"{item.source.split('/')[1]}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(catalogue.read(item)[:, :, 0]).save(path)
