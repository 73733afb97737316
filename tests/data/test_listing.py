import json

import pytest
import yaml
from published import images, write_archive, write_source

from dmlcore.data.listing import list_datasets
from dmlcore.data.repack import repack
from dmlcore.data.sources import Counts

COUNTS = {"train": {"classes": 3, "images": 9}, "test": {"classes": 2, "images": 4}}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder with one published set and one folder of images."""
    monkeypatch.setenv("DMLCORE_ARCHIVES", str(tmp_path / "archives"))
    write_source(tmp_path / "sources/a.json", "cub200", tmp_path / "archives", expected=COUNTS)
    datasets = {
        "birds": {"kind": "cub200", "source": "sources/a.json", "preprocess": {}},
        "mine": {"kind": "image_folder", "source": "../photographs", "preprocess": {}},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"datasets": datasets}))
    return tmp_path


def prepare(data, name, **counts):
    (data / "prepared" / name).mkdir(parents=True)
    (data / "prepared" / name / "dataset.json").write_text(json.dumps({"counts": {"all": counts}}))


def test_a_published_set_says_step_by_step_what_is_here(data):
    def birds():
        return list_datasets(data)[0]

    assert birds().counts == Counts(classes=5, images=13)
    assert birds().here == "missing: CUB_200_2011.tgz (by hand)"
    members = ["CUB_200_2011/images/a.jpg"] + [
        f"CUB_200_2011/{name}.txt" for name in ("classes", "image_class_labels", "images")
    ]
    write_archive(data / "archives/CUB_200_2011.tgz", images(members))
    assert birds().here == "archives"
    repack(data / "sources/a.json", data / "raw/birds")
    assert birds().here == "downloaded"
    prepare(data, "birds", classes=5, images=13)
    assert birds().here == "prepared"


def test_a_source_that_a_stage_makes_is_missing_until_then(data):
    (data / "sources/a.json").unlink()
    assert list_datasets(data)[0].here.startswith("missing: sources/a.json")


def test_a_folder_is_counted_once_it_is_prepared(data):
    mine = list_datasets(data)[1]
    assert (mine.counts, mine.here, mine.licence) == (None, "made by `dvc repro`", "the user's own")
    prepare(data, "mine", classes=2, images=7)
    assert list_datasets(data)[1].counts == Counts(classes=2, images=7)
