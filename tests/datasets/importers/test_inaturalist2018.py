import pytest

from dmlcore.core.errors import DataError
from dmlcore.datasets.importers.inaturalist2018 import load_catalogue as inaturalist2018_catalogue
from tests.datasets.published import images, imported, pixels

SPECIES = {"train": ["Plantae/7477", "Aves/3", "Aves/4"], "test": ["Plantae/12", "Fungi/9"]}
PATHS = {
    half: [f"train_val2018/{name}/{number:x}.jpg" for name in names for number in range(3)]
    for half, names in SPECIES.items()
}
EXPECTED = {"train": {"classes": 3, "images": 9}, "test": {"classes": 2, "images": 6}}


def build(folder, **changed):
    archives = {
        "train_val2018.tar.gz": images(PATHS["train"] + PATHS["test"]),
        "Inaturalist_train_set1.txt": "\n".join(PATHS["train"]).encode(),
        "Inaturalist_test_set1.txt": "\n".join(PATHS["test"]).encode() + b"\n",
    }
    content = archives | {f"Inaturalist_{half}_set1.txt": text for half, text in changed.items()}
    return imported(folder, "inaturalist2018", inaturalist2018_catalogue, content, expected=EXPECTED)


def test_species_and_kingdom_come_from_the_path(tmp_path):
    catalogue = build(tmp_path)
    assert [item.source for item in catalogue.items] == PATHS["train"] + PATHS["test"]
    found = {(item.class_name, item.super_class, item.official) for item in catalogue.items}
    assert found == {
        ("Plantae/7477", "Plantae", "train"),
        ("Aves/3", "Aves", "train"),
        ("Aves/4", "Aves", "train"),
        ("Plantae/12", "Plantae", "test"),
        ("Fungi/9", "Fungi", "test"),
    }
    assert pixels(catalogue, catalogue.items[3]).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"Plantae/12/0.jpg\n", "a path must be train_val2018/KINGDOM/SPECIES/FILE, got 'Plantae/12/0.jpg'"),
        (b"\n", "test must have 6 images, got 0; test must have 2 classes, got 0"),
        (b"train_val2018/Plantae/12/77.jpg", r"1 listed image.*'train_val2018/Plantae/12/77.jpg'"),
    ],
)
def test_broken_lists_are_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        build(tmp_path, test=text)
