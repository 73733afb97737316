import json

import numpy as np
import pytest

from dmlcore.data.errors import DataError
from dmlcore.data.packed import PreparedDataset


@pytest.fixture
def dataset(prepared, noise) -> PreparedDataset:
    return prepared(noise)


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_a_split_holds_its_images(dataset, noise, name):
    split = dataset.split(name)
    rows = dataset.manifest[split.index]
    sources = {item.source: item for item in noise.items}
    assert set(rows["split"]) == {name}
    assert isinstance(split.images, np.memmap)
    assert split.images.shape == (len(rows), 8, 8, 3)
    for image, source in zip(split.images, rows["source"], strict=True):
        assert np.array_equal(image, noise.read(sources[source]))


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


def test_the_pixels_cannot_be_changed(dataset):
    with pytest.raises(ValueError, match="read-only"):
        dataset.split("test").images[0] = 0


def test_another_split_is_refused(dataset):
    with pytest.raises(DataError, match="got 'dev'"):
        dataset.split("dev")


def test_an_absent_folder_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="run `dvc repro`"):
        PreparedDataset.open(tmp_path / "absent")


def test_a_cut_file_of_pixels_is_refused(dataset):
    images = dataset.folder / "images.bin"
    images.write_bytes(images.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"row \d+: `offset` \+ `length` must lie within"):
        PreparedDataset.open(dataset.folder)


def test_another_schema_version_is_refused(dataset):
    path = dataset.folder / "dataset.json"
    path.write_text(json.dumps(dataset.summary | {"schema_version": 0}))
    with pytest.raises(DataError, match="schema_version must be 1, got 0"):
        PreparedDataset.open(dataset.folder)
