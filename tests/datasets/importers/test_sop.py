from collections import Counter

import pytest

from dmlcore.config.data import SplitConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.importers.sop import load_catalogue as sop_catalogue
from dmlcore.datasets.prepare.splits import assign_splits
from tests.datasets.published import images, imported
from tests.shared import shared_data

ROOT = "Stanford_Online_Products"


def rows(half):
    """Columns of a list of another data set in this format, read independently of the importer."""
    lines = (shared_data("sop_format") / f"Ebay_{half}.txt").read_text().split("\n")
    return [tuple(line.split(" ")) for line in lines[1:] if line]


@pytest.fixture(scope="session")
def files():
    lists = {
        f"{ROOT}/Ebay_{half}.txt": (shared_data("sop_format") / f"Ebay_{half}.txt").read_bytes()
        for half in ("train", "test")
    }
    return lists | images([f"{ROOT}/{row[3]}" for half in ("train", "test") for row in rows(half)])


@pytest.fixture(scope="session")
def source():
    """What is in the description of the data set whose lists these are."""
    archive = {
        "file": "Stanford_Online_Products.zip",
        "unpacked_bytes": 100_000_000,
        "members": 20_000,
        "keep": [f"{ROOT}/Ebay_train.txt", f"{ROOT}/Ebay_test.txt", f"{ROOT}/*.jpg"],
    }
    counted = {
        half: {"classes": len({row[1] for row in rows(half)}), "images": len(rows(half))}
        for half in ("train", "test")
    }
    return {"archives": [archive], "expected": counted}


def test_the_lists_give_images_classes_and_halves(files, source, tmp_path):
    catalogue = imported(tmp_path, "sop", sop_catalogue, {"Stanford_Online_Products.zip": files}, **source)
    expected = {
        (f"{ROOT}/{path}", f"bicycle {label}", "bicycle", half)
        for half in ("train", "test")
        for _, label, _, path in rows(half)
    }
    assert {
        (item.source, item.class_name, item.super_class, item.official) for item in catalogue.items
    } == expected
    splits = assign_splits(catalogue.items, SplitConfig(rule="official"))
    halves = {(item.official, split) for item, split in zip(catalogue.items, splits, strict=True)}
    assert halves == {("train", "train"), ("train", "validation"), ("test", "test")}
    assert Counter(splits)["test"] == len(rows("test"))


HEAD = "image_id class_id super_class_id path\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 1 1 a/0.JPG\n", "Ebay_train.txt, line 1: must be 'image_id class_id super_class_id path'"),
        (HEAD + "1 1 1\n", "Ebay_train.txt, line 2: must have 4 columns, got '1 1 1'"),
        (HEAD + "1 1 13 a/0.JPG\n", "super_class_id must be 1 to 12, got '13'"),
        (
            HEAD + "1 1 1 a/0.JPG\n2 1 1 a/0.JPG\n",
            "'Stanford_Online_Products/a/0.JPG': the lists must name an image once",
        ),
        (HEAD + "1 1 1 a/9.JPG\n", "1 listed image.*a/9.JPG"),
        (
            HEAD + "1 1 12 a/0.JPG\n",
            "train must have 59,551 images, got 1; train must have 11,318 classes, got 1",
        ),
    ],
)
def test_broken_lists_are_refused(tmp_path, text, message):
    files = images([f"{ROOT}/a/0.JPG", f"{ROOT}/b/0.JPG"])
    files |= {
        f"{ROOT}/Ebay_train.txt": text.encode(),
        f"{ROOT}/Ebay_test.txt": (HEAD + "3 2 2 b/0.JPG").encode(),
    }
    with pytest.raises(DataError, match=message):
        imported(tmp_path, "sop", sop_catalogue, {"Stanford_Online_Products.zip": files})
