import json
import re
from dataclasses import replace

import numpy as np
import pytest

from dmlcore.core.errors import DataError
from dmlcore.data.dataset import PreparedDataset


@pytest.fixture
def dataset(prepared, noise) -> PreparedDataset:
    return prepared(noise)


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_a_split_holds_its_images(dataset, noise, name):
    split = dataset.split(name)
    rows = dataset.manifest[split.index]
    sources = {item.source: item for item in noise.items}
    assert set(rows["split"]) == {name}
    assert isinstance(split.images.array, np.memmap)
    assert len(split.images) == len(rows)
    for place, source in enumerate(rows["source"]):
        assert np.array_equal(split.images.read(place), noise.read(sources[source]))


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_labels_run_from_zero_within_a_split(dataset, name):
    split = dataset.split(name)
    assert split.labels.dtype == split.index.dtype == np.int64
    assert np.array_equal(np.unique(split.labels), np.arange(len(split.class_names)))
    assert [split.class_names[label] for label in split.labels] == dataset.manifest[split.index][
        "class_name"
    ].to_list()


def test_the_splits_are_the_whole(dataset):
    index = np.concatenate([dataset.split(name).index for name in ("train", "validation", "test")])
    assert np.array_equal(index, np.arange(dataset.manifest.height))


def test_training_and_validation_classes_together(dataset):
    both = dataset.split("train+validation")
    parts = [dataset.split(name) for name in ("train", "validation")]
    assert len(both.images) == sum(len(part.images) for part in parts)
    assert np.array_equal(both.index, np.concatenate([part.index for part in parts]))
    assert set(both.class_names) == {name for part in parts for name in part.class_names}
    assert np.array_equal(np.unique(both.labels), np.arange(len(both.class_names)))
    names = np.array(both.class_names)[both.labels]
    assert names.tolist() == dataset.manifest[both.index]["class_name"].to_list()


def test_roles_are_those_of_the_catalogue(prepared, noise):
    roles = ("query", "gallery", "both")
    items = tuple(replace(item, role=roles[place % 3]) for place, item in enumerate(noise.items))
    pixels = {item.source: noise.read(item) for item in noise.items}
    dataset = prepared(replace(noise, items=items, read=lambda item: pixels[item.source]))
    expected = {item.source: item.role for item in items}
    for name in ("train", "validation", "test"):
        split = dataset.split(name)
        sources = dataset.manifest[split.index]["source"]
        assert split.roles.tolist() == [expected[source] for source in sources]


def test_the_pixels_cannot_be_changed(dataset):
    with pytest.raises(ValueError, match="read-only"):
        dataset.split("test").images.read(0)[:] = 0


@pytest.mark.parametrize("name", ["dev", "", "train+dev"])
def test_another_split_is_refused(dataset, name):
    with pytest.raises(DataError, match=f"got {re.escape(repr(name))}"):
        dataset.split(name)


def test_splits_that_are_not_neighbours_are_refused(dataset):
    with pytest.raises(DataError, match=r"rows of 'train\+test' must be adjacent"):
        dataset.split("train+test")


def test_another_encoding_is_refused(dataset):
    (dataset.folder / "dataset.json").write_text(json.dumps(dataset.summary | {"encoding": "webp"}))
    with pytest.raises(DataError, match=r"encoding must be one of .* got 'webp'"):
        PreparedDataset.open(dataset.folder)


def test_an_absent_folder_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="run `dvc repro`"):
        PreparedDataset.open(tmp_path / "absent")


def test_a_cut_file_of_pixels_is_refused(dataset):
    images = dataset.folder / "images.bin"
    images.write_bytes(images.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"row \d+: `offset` \+ `length` must be within"):
        PreparedDataset.open(dataset.folder)


def test_another_schema_version_is_refused(dataset):
    path = dataset.folder / "dataset.json"
    path.write_text(json.dumps(dataset.summary | {"schema_version": 0}))
    with pytest.raises(DataError, match="schema_version must be 2, got 0"):
        PreparedDataset.open(dataset.folder)
