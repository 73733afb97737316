"""Caltech-101: the genuine photographs of its 101 classes, and the layout of the published archive made by hand."""

from __future__ import annotations

import io
import tarfile
from collections import Counter

import pytest

from dmlcore.config.data import PreprocessConfig, load_datasets
from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.acquire import acquire
from dmlcore.datasets.importers.caltech101 import load_catalogue as caltech_catalogue
from dmlcore.datasets.prepare.splits import assign_splits
from tests.datasets.published import SOURCES, images, imported, write_tar
from tests.shared import shared_data

TOP = "101_ObjectCategories"
CLASSES = ("BACKGROUND_Google", "Faces", "Faces_easy", "car_side")
COUNTS = {"all": {"classes": 3, "images": 6}}


def test_the_genuine_photographs(tmp_path):
    acquire(SOURCES / "caltech101.json", tmp_path / "raw", str(shared_data("caltech101")))
    items = caltech_catalogue(tmp_path / "raw", PreprocessConfig()).items
    counts = Counter(item.class_name for item in items)
    assert counts.most_common(1) == [("airplanes", 800)]
    assert min(counts.values()) == 31
    config = load_datasets(SOURCES.parent / "params.yaml").datasets["caltech101"].preprocess
    classes = {
        item.class_name: split for item, split in zip(items, assign_splits(items, config.split), strict=True)
    }
    assert Counter(classes.values()) == {"train": 37, "validation": 13, "test": 51}
    assert classes["Faces"] == classes["Faces_easy"]


def inner_tar(tmp_path, names):
    write_tar(tmp_path / "inner.tar.gz", images(names) | {f"{TOP}/BACKGROUND_Google/tmp": b"a stray file"})
    return (tmp_path / "inner.tar.gz").read_bytes()


def photographs():
    return [f"{TOP}/{name}/image_{number:04d}.jpg" for name in CLASSES for number in (1, 2)]


def test_the_published_archive_without_its_background(tmp_path):
    contents = {
        "caltech-101.zip": {
            "caltech-101/101_ObjectCategories.tar.gz": inner_tar(tmp_path, photographs()),
            "caltech-101/Annotations.tar": b"not read",
            "__MACOSX/caltech-101/._101_ObjectCategories.tar.gz": b"not read",
        }
    }
    catalogue = imported(tmp_path, "caltech101", caltech_catalogue, contents, expected=COUNTS)
    assert {(item.class_name, item.super_class) for item in catalogue.items} == {
        ("Faces", "Faces"),
        ("Faces_easy", "Faces"),
        ("car_side", "car_side"),
    }
    assert catalogue.items[0].source == f"{TOP}/Faces/image_0001.jpg"
    assert catalogue.licence == "CC BY 4.0"


def test_the_tar_alone(tmp_path):
    write_tar(tmp_path / "plain.tar", images(photographs()[2:]))
    contents = {f"{TOP}.tar": (tmp_path / "plain.tar").read_bytes()}
    catalogue = imported(tmp_path, "caltech101", caltech_catalogue, contents, expected=COUNTS)
    assert len(catalogue.items) == 6


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (photographs()[:-1], "all must have 6 images, got 5"),
        ([*photographs(), f"{TOP}/deeper/a/b.jpg"], r"b.jpg': must be in 101_ObjectCategories/CLASS/"),
    ],
    ids=["counts", "layout"],
)
def test_a_bad_archive_is_refused(tmp_path, names, fault):
    contents = {"caltech-101.zip": {"101_ObjectCategories.tar.gz": inner_tar(tmp_path, names)}}
    with pytest.raises(DataError, match=fault):
        imported(tmp_path, "caltech101", caltech_catalogue, contents, expected=COUNTS)


def test_a_link_in_the_inner_tar_is_refused(tmp_path):
    link = tarfile.TarInfo(f"{TOP}/Faces/image_0003.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(link)
    contents = {"caltech-101.zip": {"101_ObjectCategories.tar.gz": buffer.getvalue()}}
    with pytest.raises(DataError, match=r"image_0003.jpg': must be a file or a folder, got a link"):
        imported(tmp_path, "caltech101", caltech_catalogue, contents, expected=COUNTS)
