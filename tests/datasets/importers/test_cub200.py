from collections import Counter

import pytest

from dmlcore.core.errors import DataError
from dmlcore.datasets.importers.cub200 import load_catalogue as cub200_catalogue
from tests.datasets.published import images as encoded
from tests.datasets.published import imported, pixels
from tests.shared import shared_data

LISTS = ("images.txt", "image_class_labels.txt", "classes.txt", "train_test_split.txt", "bounding_boxes.txt")


@pytest.fixture(scope="session")
def genuine():
    """The members of CUB_200_2011.tgz by the published lists."""
    folder = shared_data("cub200_annotations")
    lists = {f"CUB_200_2011/{name}": (folder / name).read_bytes() for name in LISTS}
    paths = [line.split()[1] for line in (folder / "images.txt").read_text().splitlines()]
    return lists | encoded([f"CUB_200_2011/images/{path}" for path in paths])


@pytest.fixture(scope="session")
def catalogue(genuine, tmp_path_factory):
    return imported(tmp_path_factory.mktemp("cub"), "cub200", cub200_catalogue, {"CUB_200_2011.tgz": genuine})


def test_all_published_images_with_their_class_and_half(catalogue):
    folder = shared_data("cub200_annotations")
    names = dict(line.split() for line in (folder / "classes.txt").read_text().splitlines())
    labels = dict(line.split() for line in (folder / "image_class_labels.txt").read_text().splitlines())
    paths = dict(line.split() for line in (folder / "images.txt").read_text().splitlines())
    expected = {
        (f"CUB_200_2011/images/{paths[number]}", names[label], "train" if int(label) <= 100 else "test")
        for number, label in labels.items()
    }
    assert {(item.source, item.class_name, item.official) for item in catalogue.items} == expected
    assert Counter(item.official for item in catalogue.items) == {"train": 5864, "test": 5924}
    assert {item.role for item in catalogue.items} == {"both"}


def test_an_image_is_read(catalogue):
    assert pixels(catalogue, catalogue.items[77]).shape == (8, 8, 3)


def broken(genuine, tmp_path, name, data):
    """All lists, one of them changed, and few of the images."""
    few = [key for key in genuine if key.endswith(".txt")] + [key for key in genuine if "/001." in key]
    changed = {key: genuine[key] for key in few} | {f"CUB_200_2011/{name}": data}
    files = {key: value for key, value in changed.items() if value is not None}
    return imported(tmp_path, "cub200", cub200_catalogue, {"CUB_200_2011.tgz": files})


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("classes.txt", None, r"must hold a member 'CUB_200_2011/classes.txt', got none"),
        ("classes.txt", b"1 001.Some_bird\n", r"must be in the folder of its class"),
        (
            "images/001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg",
            None,
            r"11729 listed image.*001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg",
        ),
        ("images.txt", b"1\n", r"images.txt, line 1: must have 2 columns, got '1'"),
        ("images.txt", b"1 a/b.jpg\n", r"must list the same images, image 10 is in one"),
        ("images.txt", b"1 a.jpg\n1 b.jpg\n", r"images.txt: a number must occur once, got '1' twice"),
        ("images.txt", b"\xff\xfe", r"images.txt: must be UTF-8 text"),
    ],
)
def test_broken_lists_are_refused(genuine, tmp_path, name, data, message):
    with pytest.raises(DataError, match=message):
        broken(genuine, tmp_path, name, data)


def test_an_image_too_few_is_counted(genuine, tmp_path):
    lists = ("images.txt", "image_class_labels.txt")
    shorter = {
        f"CUB_200_2011/{name}": b"\n".join(genuine[f"CUB_200_2011/{name}"].splitlines()[:-1])
        for name in lists
    }
    with pytest.raises(DataError, match="test must have 5,924 images, got 5,923"):
        imported(tmp_path, "cub200", cub200_catalogue, {"CUB_200_2011.tgz": genuine | shorter})
