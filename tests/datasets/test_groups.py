"""Column `group`: from the CSV of an `image_folder` into the manifest and the splits, none where none is named."""

import unicodedata

import numpy as np
import polars as pl
import pytest
from PIL import Image

from dmlcore.config.data import DatasetConfig, PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.data.manifest import OPTIONAL, SCHEMA, validate
from dmlcore.datasets.acquire.acquire import acquire_class_folders
from dmlcore.datasets.importers.image_folder import load_catalogue

CONFIG = PreprocessConfig(image_size=8, groups="encounters.csv")
CLASSES = [*"abcdefg", "é"]


@pytest.fixture
def source(tmp_path):
    """Eight classes of three images, the first two of one encounter."""
    folder, random, rows = tmp_path / "source", np.random.default_rng(0), ["file,group,photographer"]
    for name in CLASSES:
        (folder / unicodedata.normalize("NFD", name)).mkdir(parents=True)
        for number in range(3):
            file = folder / unicodedata.normalize("NFD", name) / f"{number}.png"
            Image.fromarray(random.integers(0, 256, (10, 12, 3), np.uint8)).save(file)
            rows.append(f"{name}/{number}.png,{'dawn' if number < 2 else 'dusk'},me")
    (folder / "encounters.csv").write_text("\n".join(rows), encoding="utf-8-sig")
    return folder


@pytest.fixture
def build(tmp_path, source, prepared):
    def through_the_tar(config=CONFIG):
        acquire_class_folders(source, tmp_path / "raw")
        return prepared(load_catalogue(tmp_path / "raw", config), config)

    return through_the_tar


def test_groups_reach_the_manifest_and_the_splits(build):
    dataset = build()
    assert dict(dataset.manifest.schema) == SCHEMA | OPTIONAL
    numbers = dataset.manifest["source"].str.extract(r"/(\d)").cast(pl.Int64)
    assert dataset.manifest["group"].to_list() == ["dawn" if number < 2 else "dusk" for number in numbers]
    test = dataset.split("test")
    assert test.group_names == ("dawn", "dusk")
    assert test.groups.tolist() == [0, 0, 1] * (len(test.labels) // 3)
    assert dataset.summary["protocol"].endswith("2 groups, no pair of one class within a group")


def test_without_groups_nothing_changes(build):
    dataset = build(PreprocessConfig(image_size=8))
    assert dict(dataset.manifest.schema) == SCHEMA
    assert dataset.split("test").groups is None
    assert "group" not in dataset.summary["protocol"]


def test_groups_are_part_of_the_data_hash(build, source):
    first = build().data_hash
    table = source / "encounters.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("a/1.png,dawn", "a/1.png,noon"))
    assert build().data_hash != first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace("a/0.png,dawn,me\n", ""),
            r"1 image\(s\) have no group, the first is 'a/0.png'",
        ),
        (lambda text: text.replace("a/0.png,dawn", "a/0.png,"), "have no group, the first is 'a/0.png'"),
        (lambda text: text.replace("file", "path"), "must be CSV with the columns file, group"),
        (lambda text: text + "\na/0.png,noon,me", "a file must have one row"),
        (
            lambda text: text.replace("dusk", "dawn"),
            "a class of split `validation` must have images of two groups",
        ),
    ],
)
def test_a_table_that_leaves_questions_is_refused(build, source, change, message):
    table = source / "encounters.csv"
    table.write_text(change(table.read_text(encoding="utf-8-sig")))
    with pytest.raises(DataError, match=message):
        build()


def test_no_such_table_is_refused(build, source):
    (source / "encounters.csv").unlink()
    with pytest.raises(DataError, match=r"'encounters.csv': no such file at the top of the source folder"):
        build()


def test_groups_are_of_image_folders_only():
    with pytest.raises(ValueError, match="`groups` works for kind `image_folder` only, got kind `mnist`"):
        DatasetConfig(kind="mnist", source="mnist.json", preprocess=CONFIG)


def test_a_manifest_with_groups_for_some_images_is_refused(build):
    manifest = build().manifest
    size = int(manifest["length"].sum())
    validate(manifest, CONFIG, channels=3, size_bytes=size)
    some = manifest.with_columns(group=pl.when(pl.col("index") == 5).then(pl.lit("")).otherwise("group"))
    with pytest.raises(DataError, match="row 5: `group` must be filled in for all images or for none"):
        validate(some, CONFIG, channels=3, size_bytes=size)
    empty = manifest.with_columns(group=pl.when(pl.col("index") == 5).then(None).otherwise("group"))
    with pytest.raises(DataError, match="row 5: `group` must be filled in"):
        validate(empty, CONFIG, channels=3, size_bytes=size)
