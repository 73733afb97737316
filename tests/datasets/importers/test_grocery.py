"""Grocery Store: the genuine reduced folder, and the layout of its GitHub archive made by hand."""

from __future__ import annotations

import shutil

import polars as pl
import pytest

from dmlcore.config.data import DatasetConfig, PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.acquire import acquire
from dmlcore.datasets.importers.grocery import load_catalogue as grocery_catalogue
from tests.datasets.published import SOURCES, imported, tiny_jpeg
from tests.shared import shared_data

SOURCE = SOURCES / "grocery.json"
TOP = "GroceryStoreDataset-master/dataset"
HEADER = (
    "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),"
    "Iconic Image Path (str),Product Description Path (str)"
)


@pytest.fixture(scope="module")
def genuine(tmp_path_factory):
    raw = tmp_path_factory.mktemp("grocery") / "raw"
    acquire(SOURCE, raw, str(shared_data("grocery").parent))
    return grocery_catalogue(raw, PreprocessConfig())


def test_the_genuine_folder_agrees_with_its_labels(genuine):
    listed = pl.read_csv(shared_data("grocery") / "labels.csv")
    expected = {(path, coarse) for path, coarse in listed.select("path", "coarse").rows()}
    assert {(item.source, item.class_name) for item in genuine.items} == expected
    assert len(genuine.items) == 5421


def test_the_genuine_fine_classes_agree_with_their_labels(tmp_path):
    listed = pl.read_csv(shared_data("grocery") / "labels.csv")
    acquire(SOURCE, tmp_path / "raw", str(shared_data("grocery").parent))
    items = grocery_catalogue(tmp_path / "raw", PreprocessConfig(fine_classes=True)).items
    assert {(item.source, item.class_name, item.super_class) for item in items} == set(
        listed.select("path", "fine", "coarse").rows()
    )


def test_each_coarse_class_has_a_text(genuine):
    assert genuine.class_texts.keys() == {item.class_name for item in genuine.items}
    apple = genuine.class_texts["Apple"]
    assert apple.startswith("Apple: Golden Delicious has a white juicy pulp and a greenish yellow shell. ")
    assert apple.count(".") == 5  # One sentence for each of the five kinds.


def products(rows):
    """classes.csv and one description a product, from (fine, coarse)."""
    table, files = [HEADER], {}
    for number, (fine, coarse) in enumerate(rows):
        base = f"/iconic-images-and-descriptions/Fruit/{coarse}/{fine}/{fine}"
        table.append(f"{fine},{number},{coarse},{number},{base}_Iconic.jpg,{base}_Description.txt")
        files[f"{TOP}{base}_Description.txt"] = f"{fine} tastes\n well. It keeps.".encode()
        files[f"{TOP}{base}_Description_Swedish.txt"] = b"Smakar gott."
    return {f"{TOP}/classes.csv": "\n".join(table).encode()} | files


def photographs(rows):
    halves = ("train", "val", "test")
    return {
        f"{TOP}/{half}/Fruit/{coarse}/{fine}/{fine}_{number:03d}.jpg": tiny_jpeg(number)
        for fine, coarse in rows
        for number, half in enumerate(halves)
    }


ROWS = [("Granny-Smith", "Apple"), ("Royal-Gala", "Apple"), ("Sour-Lime", "Sour-Fruit")]
COUNTS = {"all": {"classes": 3, "super_classes": 2, "images": 9}}


def test_the_layout_of_the_github_archive(tmp_path):
    members = (
        products(ROWS) | photographs(ROWS) | {f"{TOP}/iconic-images-and-descriptions/a.jpg": tiny_jpeg(9)}
    )
    contents = {"GroceryStoreDataset-master.zip": members}
    catalogue = imported(tmp_path, "grocery", grocery_catalogue, contents, expected=COUNTS)
    assert {(item.class_name, item.super_class) for item in catalogue.items} == {
        ("Apple",) * 2,
        ("Sour-Fruit",) * 2,
    }
    assert catalogue.items[0].source == f"{TOP}/test/Fruit/Apple/Granny-Smith/Granny-Smith_002.jpg"
    assert catalogue.class_texts == {
        "Apple": "Apple: Granny-Smith tastes well. Royal-Gala tastes well.",
        "Sour-Fruit": "Sour Fruit: Sour-Lime tastes well.",
    }


def test_fine_classes_of_the_github_archive(tmp_path):
    contents = {"GroceryStoreDataset-master.zip": products(ROWS) | photographs(ROWS)}
    imported(tmp_path, "grocery", grocery_catalogue, contents, expected=COUNTS)
    catalogue = grocery_catalogue(tmp_path / "raw", PreprocessConfig(fine_classes=True))
    assert {(item.class_name, item.super_class) for item in catalogue.items} == set(ROWS)
    assert {item.split_text for item in catalogue.items} == {fine for fine, _ in ROWS}
    assert catalogue.class_texts == {
        "Granny-Smith": "Granny Smith: Granny-Smith tastes well.",
        "Royal-Gala": "Royal Gala: Royal-Gala tastes well.",
        "Sour-Lime": "Sour Lime: Sour-Lime tastes well.",
    }


def test_fine_classes_are_of_grocery_alone():
    with pytest.raises(ValueError, match="`fine_classes` works for kind `grocery` only, got kind `mnist`"):
        DatasetConfig(kind="mnist", source="a.json", preprocess=PreprocessConfig(fine_classes=True))


def without(members, ending):
    return {name: data for name, data in members.items() if not name.endswith(ending)}


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        (
            products(ROWS[:2]) | photographs(ROWS),
            r"must be in the folder of a class of classes.csv, got 'Sour-Lime'",
        ),
        (
            products(ROWS) | photographs(ROWS[:2]),
            "all must have 9 images, got 6; all must have 3 classes, got 2; all must have 2 super-classes, got 1",
        ),
        (
            without(products(ROWS), "Sour-Lime_Description.txt") | photographs(ROWS),
            "Sour-Lime: must have one English",
        ),
        (
            without(products(ROWS), "classes.csv") | photographs(ROWS),
            r"must hold a member '\*/dataset/classes.csv'",
        ),
        (
            products(ROWS) | photographs(ROWS) | {f"{TOP}/classes.csv": b"fine,coarse\n"},
            "classes.csv: must have the columns",
        ),
    ],
    ids=["unlisted class", "counts", "no description", "no table", "another table"],
)
def test_a_bad_archive_is_refused(tmp_path, members, fault):
    with pytest.raises(DataError, match=fault):
        imported(
            tmp_path,
            "grocery",
            grocery_catalogue,
            {"GroceryStoreDataset-master.zip": members},
            expected=COUNTS,
        )


def test_a_changed_folder_is_refused(tmp_path):
    folder = tmp_path / "archives/grocery"
    shutil.copytree(shared_data("grocery"), folder, copy_function=shutil.copyfile)
    photograph = next((folder / "images/Lemon").iterdir())
    photograph.write_bytes(photograph.read_bytes() + b"\0")
    with pytest.raises(
        DataError, match=r"grocery: the sha256 of its list of files must be [0-9a-f]{64}, got"
    ):
        acquire(SOURCE, tmp_path / "raw", str(tmp_path / "archives"))
    assert not (tmp_path / "raw").exists()


def test_missing_archives_say_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMLCORE_ARCHIVES", str(tmp_path / "mine"))
    with pytest.raises(DataError) as error:
        acquire(SOURCE, tmp_path / "raw", None)
    for part in (
        "GroceryStoreDataset-master.zip",
        "Download ZIP",
        "grocery: ",
        "sha256",
        str(tmp_path / "mine"),
    ):
        assert part in str(error.value)
