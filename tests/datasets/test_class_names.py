"""Names of class folders as people write them, and names in tables and lists that mean them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from dmlcore.config.data import PreprocessConfig, SplitConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.acquire import acquire_class_folders
from dmlcore.datasets.acquire.raw_tar import RawTar, write_raw_tar
from dmlcore.datasets.importers.image_folder import load_catalogue
from dmlcore.datasets.prepare.catalogue import read_rows, read_table
from tests.core.test_text import VALID

COMPOSED, APART = "caf\u00e9", "cafe\u0301"


@pytest.fixture
def source(tmp_path):
    """Eight classes of two images."""
    folder = tmp_path / "source"
    random = np.random.default_rng(0)
    for name in (COMPOSED, APART, *"abcdef"):
        (folder / name).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8)).save(
                folder / name / f"{number}.png"
            )
    return folder


@pytest.fixture
def build(tmp_path, source, prepared):
    def through_the_tar(**settings):
        config = PreprocessConfig(image_size=8, **settings)
        acquire_class_folders(source, tmp_path / "raw")
        return prepared(load_catalogue(tmp_path / "raw", config), config)

    return through_the_tar


def test_every_valid_name_is_a_class_and_a_file(source, build):
    for place, name in enumerate(VALID):
        folder = source / name
        folder.mkdir()
        for number in range(2):
            Image.new("RGB", (9, 9), (place, 99 * number, 7)).save(folder / f"{name} {number}.png")
    manifest = build().manifest
    assert set(VALID) < set(manifest["class_name"])
    assert f"{VALID[0]}/{VALID[0]} 0.png" in set(manifest["source"])


def test_names_that_differ_by_normalisation_alone_are_noted(build, capsys):
    dataset = build()
    (note,) = dataset.summary["notes"]
    assert "'cafe\\u0301', 'caf\\xe9' differ only by the Unicode normalisation" in note
    assert "set `merge_names: true`" in note
    assert note in capsys.readouterr().err
    assert dataset.manifest["class_name"].n_unique() == 8


def test_they_are_one_class_by_the_setting(build):
    dataset = build(merge_names=True)
    merged = dataset.manifest.filter(class_name=COMPOSED)
    assert sorted(merged["source"]) == sorted(f"{n}/{i}.png" for n in (APART, COMPOSED) for i in (0, 1))
    assert dataset.manifest["class_name"].n_unique() == 7
    assert "are one class" in dataset.summary["notes"][0]


def test_sound_names_need_no_note(source, build):
    shutil.rmtree(source / APART)
    assert "notes" not in build().summary


def test_a_table_and_a_split_may_write_a_name_in_the_other_form(source, build):
    shutil.rmtree(source / COMPOSED)
    rows = "".join(f"{name},{name.upper()}\r\n" for name in (COMPOSED, *"abcdef"))
    (source / "groups.csv").write_bytes(b"\xef\xbb\xbfclass_name,super_class\r\n" + rows.encode())
    split = SplitConfig(rule="listed", test=(COMPOSED, "a"), validation=("b",))
    manifest = build(super_classes="groups.csv", split=split).manifest
    assert manifest.filter(class_name=APART).select("split", "super_class").rows()[0] == ("test", "CAF\u00c9")


def test_a_table_in_latin_1_is_named(source, build):
    shutil.rmtree(source / APART)
    (source / "groups.csv").write_bytes(f"class_name,super_class\n{COMPOSED},x\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"groups.csv: must be UTF-8 text, got byte 0xe9 in line 2"):
        build(super_classes="groups.csv")


@pytest.fixture
def listed(tmp_path):
    def write(text):
        write_raw_tar(tmp_path / "images.tar", [("list.txt", text)])
        return RawTar.open(tmp_path / "images.tar")

    return write


@pytest.mark.parametrize("odd", ["\u2028", "\x85", "\x0c", "\u00a0", "\u3000"], ids=ascii)
def test_odd_characters_within_a_published_name_shift_nothing(listed, odd):
    tar = listed(f"\ufeff1 a{odd}b\r\n2 \t c d\n".encode())
    assert read_table(tar, "list.txt") == {"1": f"a{odd}b", "2": "c d"}


def test_a_published_list_in_another_encoding_is_named(listed):
    with pytest.raises(DataError, match=r"list.txt: must be UTF-8 text, got byte 0xe9 in line 1"):
        list(read_rows(listed(b"1 caf\xe9\n"), "list.txt", 2))
