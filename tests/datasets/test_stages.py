"""The data stages under DVC: only what changed runs; a new data set is an importer, a source and an entry."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from dmlcore.data.dataset import PreparedDataset
from tests.datasets.published import checksums, images, write_archive

REPOSITORY = Path(__file__).parents[2]
BOTH = {"download@mine", "preprocess@mine"}
IMPORTER = '''
"""Coloured tiles: a folder a class."""

from dmlcore.datasets.prepare.catalogue import Item, imported_catalogue


def load_catalogue(raw, config):
    return imported_catalogue(raw, lambda tar: [item(path) for path in tar.members])


def item(path):
    name = path.split("/")[0]
    return Item(name, name, path, split_text=name)
'''


@pytest.fixture(scope="module")
def prepared_project(tmp_path_factory):
    """A copy of the project over a small image folder: its data is prepared, its sweep is up to date."""
    project = tmp_path_factory.mktemp("dvc") / "project"
    shutil.copytree(REPOSITORY / "dmlcore", project / "dmlcore", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / "pipeline", project / "pipeline")
    shutil.copytree(REPOSITORY / "data/weights", project / "data/weights")
    shutil.copy(REPOSITORY / "data/dvc.yaml", project / "data")
    shutil.copy(REPOSITORY / "params.yaml", project)
    study = (REPOSITORY / "dvc.yaml").read_text().replace("data/prepared/glyphs", "data/prepared/mine")
    (project / "dvc.yaml").write_text(study)
    write_params(project, image_size=8)
    for name in "abcdefgh":
        (project / "photographs" / name).mkdir(parents=True)
        for number in range(4):
            write_image(project / "photographs" / name / f"{number}.png", seed=10 * ord(name) + number)
    dvc(project, "init", "--no-scm", "--quiet")
    assert dvc(project, "repro", "data/dvc.yaml") == BOTH
    for name in ("state/records/one.json", "results/trials.parquet", "results/datasets.json"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("{}")
    dvc(project, "commit", "--force", "sweep")
    assert stale(project) == set()
    return project


@pytest.fixture
def project(prepared_project, tmp_path):
    return Path(shutil.copytree(prepared_project, tmp_path / "project"))


def write_params(project, image_size, **others):
    split = {"test_share": 0.5, "validation_share": 0.25}
    preprocess = {"image_size": image_size, "split": split}
    mine = {"kind": "image_folder", "source": "../photographs", "preprocess": preprocess}
    (project / "data/params.yaml").write_text(yaml.safe_dump({"datasets": {"mine": mine, **others}}))


def write_image(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def run_dvc(project, *arguments):
    environment = os.environ | {
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(project / "site-cache"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(project),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dvc(project, *arguments):
    """Run DVC; give the stages that it ran."""
    return set(re.findall(r"Running stage '(?:.*:)?(.*)'", run_dvc(project, *arguments)))


def stale(project):
    """The stages that `dvc status` would run again; `aggregate` never ran here."""
    found = json.loads(run_dvc(project, "status", "--json"))
    return {name.split(":")[-1] for name in found} - {"aggregate"}


def cached(project):
    return [path.read_bytes() for path in (project / ".dvc/cache").rglob("*") if path.is_file()]


def test_dvc_runs_what_changed(project):
    assert (project / "data/prepared/mine/images.bin").stat().st_size == 32 * 8 * 8 * 3
    assert (project / "data/raw/mine/images.tar").read_bytes() not in cached(project)
    assert dvc(project, "repro", "data/dvc.yaml") == set()

    write_image(project / "photographs/a/0.png", seed=0)
    assert dvc(project, "repro", "data/dvc.yaml") == BOTH

    write_params(project, image_size=16)
    assert dvc(project, "repro", "data/dvc.yaml") == {"preprocess@mine"}


def test_a_new_data_set_is_an_importer_a_source_and_an_entry_and_restales_no_other(project):
    (project / "dmlcore/datasets/importers/tiles.py").write_text(IMPORTER)
    write_archive(
        project / "data/archives/tiles.zip", images([f"{c}/{n}.jpg" for c in "abcdefgh" for n in "12"])
    )
    known = checksums((project / "data/archives/tiles.zip").read_bytes())
    archive = {"file": "tiles.zip", "note": "made by a test", "unpacked_bytes": 10**6, "members": 30} | known
    facts = {"description": "tiles", "licence": "CC0", "licence_read": "read", "origin": "this test"}
    counts = {"all": {"classes": 8, "images": 16}}
    source = project / "data/sources/tiles.json"
    source.parent.mkdir()
    source.write_text(json.dumps(facts | {"archives": [archive], "expected": counts}))
    tiles = {"kind": "tiles", "source": "sources/tiles.json", "preprocess": {"image_size": 8}}
    write_params(project, image_size=8, tiles=tiles)

    assert stale(project) == {"download@tiles", "preprocess@tiles"}
    assert dvc(project, "repro", "data/dvc.yaml") == {"download@tiles", "preprocess@tiles"}
    summary = PreparedDataset.open(project / "data/prepared/tiles").summary
    assert summary["counts"]["all"] == {"classes": 8, "images": 16}


def test_two_data_sets_of_one_kind_and_source_have_stages_of_their_own(project):
    params = yaml.safe_load((project / "data/params.yaml").read_text())["datasets"]["mine"]
    larger = params | {"preprocess": params["preprocess"] | {"image_size": 16}}
    write_params(project, image_size=8, **{"mine-large": larger})
    assert dvc(project, "repro", "data/dvc.yaml") == {"download@mine-large", "preprocess@mine-large"}
    sides = {"mine": 8, "mine-large": 16}
    for name, side in sides.items():
        assert (project / f"data/prepared/{name}/images.bin").stat().st_size == 32 * side * side * 3
    assert dvc(project, "repro", "data/dvc.yaml") == set()


def test_a_setting_of_the_sweep_restales_no_data(project):
    schema = project / "dmlcore/config/sweep.py"
    schema.write_text(schema.read_text() + "\n\nNEW_SETTING = 1\n")
    values = yaml.safe_load((project / "params.yaml").read_text())
    values["sweep"]["seeds"] = [17]
    (project / "params.yaml").write_text(yaml.safe_dump(values))
    assert stale(project) == {"sweep"}


def test_a_metric_restales_no_data(project):
    edit(project / "dmlcore/metrics/__init__.py", '"""', '"""Edited. ')
    assert stale(project) == {"sweep"}
