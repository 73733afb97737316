import polars as pl
import pytest

from dmlcore.config.data import PreprocessConfig, SplitConfig
from dmlcore.core.errors import DataError
from dmlcore.data.manifest import validate

CLOSED = PreprocessConfig(split=SplitConfig(protocol="closed"))


@pytest.fixture
def manifest(prepared, noise) -> pl.DataFrame:
    return prepared(noise).manifest


def check(manifest, config=None, size_bytes=None):
    size = manifest["length"].sum() if size_bytes is None else size_bytes
    validate(manifest, config or PreprocessConfig(), channels=3, size_bytes=size)


def change(manifest, row, **values):
    here = pl.int_range(pl.len()) == row
    changes = [
        pl.when(here).then(pl.lit(value)).otherwise(pl.col(key)).alias(key) for key, value in values.items()
    ]
    return manifest.with_columns(changes).cast(dict(manifest.schema))


def test_a_sound_manifest_passes(manifest):
    check(manifest)


def test_a_class_in_two_splits_is_refused(manifest):
    last = manifest.height - 1
    with pytest.raises(
        DataError, match=rf"row {last}: one `class_name` must be in one split only.*'class 9'"
    ):
        check(change(manifest, last, split="train"))


def test_a_closed_set_may_share_classes(manifest):
    check(change(manifest, manifest.height - 1, split="train"), CLOSED)


def test_a_super_class_in_two_splits_is_refused_where_it_is_the_unit(manifest):
    with pytest.raises(DataError, match="one `super_class` must be in one split only"):
        check(manifest, PreprocessConfig(split=SplitConfig(unit="super_class")))


def test_identical_images_under_two_classes_are_refused(manifest):
    copy = change(manifest, manifest.height - 1, sha256=manifest["sha256"][0])
    with pytest.raises(DataError, match=rf"row 0 \(.*\), row {manifest.height - 1} \(.*; 2 such rows"):
        check(copy)
    check(copy, PreprocessConfig(on_duplicates="report"))


def test_identical_images_within_a_class_pass(manifest):
    assert manifest["label"][0] == manifest["label"][1]
    check(change(manifest, 1, sha256=manifest["sha256"][0]))


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_held_out_class_of_one_image_is_refused(manifest, split):
    label = manifest.filter(split=split)["label"][0]
    kept = manifest.filter((pl.col("label") != label) | ~pl.col("label").is_duplicated())
    row = manifest.filter(label=label).head(1)
    alone = pl.concat([kept, row]).sort("index").with_columns(index=pl.int_range(pl.len()))
    alone = alone.with_columns(offset=pl.col("length").cum_sum() - pl.col("length"))
    with pytest.raises(DataError, match=r"row \d+: a test or validation class must have at least 2 images"):
        check(alone)


def test_a_training_class_of_one_image_passes(manifest):
    first = manifest.filter((pl.col("label") != pl.col("label").first()) | (pl.col("index") == 0))
    renumbered = first.with_columns(index=pl.int_range(pl.len()))
    check(renumbered.with_columns(offset=pl.col("length").cum_sum() - pl.col("length")))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label": 99}, "labels must be 0..C-1 without a gap"),
        ({"class_name": "other"}, "row 0: each `label` must have one `class_name`"),
        ({"super_class": "other"}, "each `class_name` must have one `super_class`"),
        ({"index": 7}, "row 7: `index` must number the rows from 0"),
        ({"split": "dev"}, "row 0: `split` must be one of"),
        ({"role": "other"}, "row 0: `role` must be one of"),
        ({"source": None}, "row 0: `source` must be filled in"),
        ({"offset": -1}, "row 0: `offset` \\+ `length` must be within"),
        ({"offset": 10**9}, "row 0: `offset` \\+ `length` must be within"),
        ({"offset": 192}, "row 0: `offset` must follow the row before it"),
        ({"height": 0}, "row 0: `height` must be positive"),
        ({"height": 9}, "row 0: `length` must be height x width x 3"),
    ],
)
def test_each_broken_row_is_named(manifest, values, message):
    with pytest.raises(DataError, match=message):
        check(change(manifest, 0, **values))


def test_bytes_beyond_the_manifest_are_refused(manifest):
    with pytest.raises(DataError, match="bytes of the manifest's rows, got"):
        check(manifest, size_bytes=manifest["length"].sum() + 1)


def test_an_empty_split_is_refused(manifest):
    with pytest.raises(DataError, match="split `train` must have images, got none"):
        check(manifest.with_columns(split=pl.lit("test")))


def test_other_columns_are_refused(manifest):
    with pytest.raises(DataError, match="columns must be"):
        check(manifest.drop("role"))
    with pytest.raises(DataError, match="must hold images"):
        check(manifest.clear())
