"""One broken file is no reason to refuse a data set; classes of one image by a setting."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from dmlcore.config.data import PreprocessConfig, SplitConfig
from dmlcore.core.errors import DataError
from tests.datasets.photo_files import photo_catalogue

LENIENT = {"image_size": 8, "max_broken_share": 0.05}


def cut(catalogue, *places):
    broken = {catalogue.items[place] for place in places}

    def read(item):
        data = catalogue.read(item)
        return data[: len(data) // 2] if item in broken else data

    return replace(catalogue, read=read)


def without(catalogue, *classes):
    return replace(catalogue, items=tuple(item for item in catalogue.items if item.class_name not in classes))


@pytest.fixture(scope="module")
def pairs():
    """40 classes of 2 images."""
    return photo_catalogue(classes=40, images=2)


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
@pytest.mark.parametrize("place", [0, 11, 20, 31, 40, 51, 60, 79])
def test_a_class_that_a_cut_file_makes_too_small_is_left_out(prepared, pairs, capsys, place, encoding):
    config = PreprocessConfig(**LENIENT, encoding=encoding)
    dataset = prepared(cut(pairs, place), config)
    name = pairs.items[place].class_name
    note = f"1 class(es) are left out, too small without broken images: {name!r}"
    assert dataset.summary["notes"] == [note]
    assert note in capsys.readouterr().err
    assert dataset.summary["unreadable"]["images"] == 1
    assert pairs.items[place].source in dataset.summary["unreadable"]["first"][0]
    # As if the class had never been there: split, order and pixels.
    assert prepared(without(pairs, name), config).data_hash == dataset.data_hash


def test_the_folder_holds_what_it_always_holds(prepared, pairs):
    folder = prepared(cut(pairs, 0), PreprocessConfig(**LENIENT)).folder
    assert {path.name for path in folder.iterdir()} == {"manifest.parquet", "images.bin", "dataset.json"}


def test_what_a_killed_run_has_put_in_order_is_made_anew(prepared, pairs, tmp_path):
    first = prepared(cut(pairs, 0), PreprocessConfig(**LENIENT)).data_hash
    partial = tmp_path / ".prepared.partial"
    for sound in (pairs, cut(pairs, 0)):
        partial.mkdir()
        (partial / "packed.bin").write_bytes(b"half of it")
        dataset = prepared(sound, PreprocessConfig(**LENIENT))
        assert {path.name for path in dataset.folder.iterdir()} == {
            "manifest.parquet",
            "images.bin",
            "dataset.json",
        }
    assert dataset.data_hash == first


def test_a_class_without_any_readable_image_is_named(prepared, pairs):
    summary = prepared(cut(pairs, 4, 5), PreprocessConfig(**LENIENT)).summary
    assert summary["notes"] == ["1 class(es) are left out, too small without broken images: 'class 02'"]
    assert summary["counts"]["all"] == {"classes": 39, "images": 78}


def test_a_class_that_stays_large_enough_keeps_its_split(prepared):
    whole = photo_catalogue(classes=16, images=3)
    before = prepared(whole, PreprocessConfig(image_size=8)).manifest
    after = prepared(cut(whole, 7), PreprocessConfig(**LENIENT))
    assert "notes" not in after.summary
    assert after.manifest["source"].to_list() == [
        source for source in before["source"] if source != whole.items[7].source
    ]


def test_a_listed_class_may_fall_out(prepared, pairs):
    split = SplitConfig(rule="listed", test=("class 03", "class 04"), validation=("class 05",))
    manifest = prepared(cut(pairs, 6), PreprocessConfig(**LENIENT, split=split)).manifest
    assert manifest.filter(split="test")["class_name"].unique().to_list() == ["class 04"]
    assert "class 03" not in set(manifest["class_name"])


def test_a_closed_class_with_one_image_left_in_a_split_falls_out(prepared):
    whole = photo_catalogue(classes=4, images=8)
    split = SplitConfig(protocol="closed", test_share=0.25, validation_share=0.25)
    config = PreprocessConfig(**LENIENT, split=split)
    test = prepared(whole, config).manifest.filter(split="test", class_name="class 01")["source"]
    place = next(n for n, item in enumerate(whole.items) if item.source == test[0])
    dataset = prepared(cut(whole, place), config)
    assert set(dataset.manifest["class_name"]) == {"class 00", "class 02", "class 03"}


@pytest.fixture(scope="module")
def lone(pairs):
    """Every fourth class has one image."""
    kept = [item for n, item in enumerate(pairs.items) if n % 8 != 1]
    return replace(pairs, items=tuple(kept))


def test_lone_images_are_refused_before_anything_is_encoded(prepared, lone):
    def read(item):
        raise AssertionError("nothing is to be read")

    with pytest.raises(DataError, match=r"at least 2 images.*set `lone_images` to drop or gallery"):
        prepared(replace(lone, read=read), PreprocessConfig(image_size=8))


def test_lone_images_are_dropped(prepared, lone):
    dataset = prepared(lone, PreprocessConfig(image_size=8, lone_images="drop"))
    assert dataset.manifest.group_by("class_name").len()["len"].unique().to_list() == [2]
    (note,) = dataset.summary["notes"]
    assert note.startswith("10 class(es) of one image are left out: 'class 00', 'class 04'")


@pytest.mark.parametrize("places", [(), (2,)], ids=["whole", "one more by a broken file"])
def test_lone_images_are_kept_for_the_gallery(prepared, lone, places):
    config = PreprocessConfig(**LENIENT, lone_images="gallery")
    manifest = prepared(cut(lone, *places), config).manifest
    assert manifest["class_name"].n_unique() == 40
    alone = manifest.filter(pl.len().over("class_name") == 1)
    assert alone.height == 10 + len(places)
    assert set(alone["split"]) == {"train", "validation", "test"}
