"""Omniglot: the genuine small archives, and its layout made by hand."""

from __future__ import annotations

import shutil
from collections import Counter

import numpy as np
import polars as pl
import pytest
from PIL import Image

from dmlcore.config.data import PreprocessConfig, SplitConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.acquire import acquire
from dmlcore.datasets.importers.omniglot import load_catalogue as omniglot_catalogue
from tests.datasets.published import SOURCES, encode, imported
from tests.shared import shared_data

ALPHABETS = {
    "Balinese": 24,
    "Early_Aramaic": 22,
    "Greek": 24,
    "Japanese_(katakana)": 47,
    "Korean": 40,
    "Latin": 26,
    "Sanskrit": 42,
    "Tagalog": 17,
}
"""Characters of each, counted in the archives."""


def drawing(seed):
    return encode(Image.fromarray(np.random.default_rng(seed).random((105, 105)) < 0.9), "PNG")


@pytest.fixture(scope="module")
def genuine(tmp_path_factory):
    raw = tmp_path_factory.mktemp("omniglot") / "raw"
    acquire(SOURCES / "omniglot.json", raw, str(shared_data("omniglot")))
    return omniglot_catalogue(raw, PreprocessConfig())


def test_the_genuine_archives_hold_each_character_once(genuine):
    table = pl.DataFrame([(item.super_class, item.class_name) for item in genuine.items], orient="row")
    alphabets = table.group_by("column_0").agg(pl.col("column_1").n_unique(), pl.len().alias("images"))
    assert {name: characters for name, characters, _ in alphabets.rows()} == ALPHABETS
    assert {name: images for name, _, images in alphabets.rows()} == {
        name: 20 * characters for name, characters in ALPHABETS.items()
    }


def test_alphabets_are_kept_whole(prepared, genuine):
    split = SplitConfig(unit="super_class", test_share=0.4)
    dataset = prepared(genuine, PreprocessConfig(image_size=32, split=split, on_duplicates="report"))
    alphabets = dataset.manifest.group_by("super_class").agg(pl.col("split").unique())
    assert alphabets["split"].list.len().max() == 1
    assert Counter(alphabets["split"].explode()) == {"test": 3, "train": 4, "validation": 1}


def test_drawings_are_black_on_white_and_grey(prepared, genuine):
    images = prepared(genuine, PreprocessConfig(image_size=32, on_duplicates="report")).split("test").images
    assert images.channels == 1
    pixels = np.stack([images.read(index) for index in range(0, len(images), 100)])
    assert pixels.shape[1:] == (32, 32, 1)
    assert pixels.mean() > 200 > 100 > pixels.min()


def test_an_alphabet_of_both_archives_counts_once(tmp_path):
    small1, small2 = "images_background_small1", "images_background_small2"
    contents = {
        f"{small1}.zip": {f"{small1}/Greek/character01/0394_0{n}.png": drawing(n) for n in (1, 2)},
        f"{small2}.zip": {f"{small2}/Greek/character01/0394_0{n}.png": drawing(n) for n in (1, 2)}
        | {f"{small2}/Tagalog/character01/0923_01.png": drawing(3)},
    }
    counts = {"all": {"classes": 2, "images": 3}}
    catalogue = imported(tmp_path, "omniglot", omniglot_catalogue, contents, expected=counts)
    assert sorted((item.class_name, item.source.split("/")[0]) for item in catalogue.items) == [
        ("Greek/character01", small1),
        ("Greek/character01", small1),
        ("Tagalog/character01", small2),
    ]


def test_an_image_outside_its_alphabet_is_refused(tmp_path):
    contents = {
        f"images_background_small{n}.zip": {f"images_background_small{n}/Greek/stray.png": drawing(1)}
        for n in (1, 2)
    }
    with pytest.raises(DataError, match=r"stray.png': must be in ARCHIVE/ALPHABET/CHARACTER/"):
        imported(
            tmp_path, "omniglot", omniglot_catalogue, contents, expected={"all": {"classes": 1, "images": 1}}
        )


def test_a_cut_archive_is_refused_before_it_is_opened(tmp_path):
    folder = tmp_path / "archives"
    shutil.copytree(shared_data("omniglot"), folder)
    cut = folder / "images_background_small2.zip"
    cut.chmod(0o600)
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"small2.zip: must have 1,580,917 bytes, got 1,580,916"):
        acquire(SOURCES / "omniglot.json", tmp_path / "raw", str(folder))
    assert not (tmp_path / "raw").exists()
