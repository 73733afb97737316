import io
from collections import Counter

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from dmlcore.core.errors import DataError
from dmlcore.datasets.importers.cars196 import load_catalogue as cars196_catalogue
from tests.datasets.published import images, imported, pixels
from tests.shared import shared_data

EXPECTED = {"train": 8054, "test": 8131}


def genuine(name):
    return loadmat(shared_data("cars196_devkit") / name, simplify_cells=True)


def write_mat(**variables):
    buffer = io.BytesIO()
    savemat(buffer, variables)
    return buffer.getvalue()


def structs(**columns):
    """A MATLAB struct array: one cell a field, as in the published tables."""
    table = np.empty((1, len(next(iter(columns.values())))), [(name, object) for name in columns])
    for name, values in columns.items():
        table[0][name] = values
    return table


@pytest.fixture(scope="session")
def labelled():
    """(path in its folder, class, whether it is a published test image) of all 16,185 images.

    The published test table comes without classes: they are dealt out here so that the halves get their numbers.
    """
    train = [
        (f"cars_train/{row['fname']}", int(row["class"]), 0)
        for row in genuine("cars_train_annos.mat")["annotations"]
    ]
    files = [row["fname"] for row in genuine("cars_test_annos.mat")["annotations"]]
    first = EXPECTED["train"] - sum(label <= 98 for _, label, _ in train)
    dealt = [1 + place % 98 if place < first else 99 + place % 98 for place in range(len(files))]
    return train + [(f"cars_test/{file}", label, 1) for file, label in zip(files, dealt, strict=True)]


@pytest.fixture(scope="session")
def names():
    return [str(name) for name in genuine("cars_meta.mat")["class_names"]]


@pytest.fixture(scope="session")
def one_table(labelled, names):
    paths = [f"car_ims/{number:06}.jpg" for number in range(1, len(labelled) + 1)]
    columns = {
        "relative_im_path": paths,
        "class": [row[1] for row in labelled],
        "test": [row[2] for row in labelled],
    }
    cells = np.array(names, object)[None]
    return {
        "car_ims.tgz": images(paths),
        "cars_annos.mat": write_mat(annotations=structs(**columns), class_names=cells),
    }


@pytest.fixture(scope="session")
def two_folders(labelled):
    devkit = shared_data("cars196_devkit")
    test = [row for row in labelled if row[2]]
    columns = {"fname": [path.split("/")[1] for path, _, _ in test], "class": [label for _, label, _ in test]}
    kit = {
        f"devkit/{name}": (devkit / name).read_bytes() for name in ("cars_meta.mat", "cars_train_annos.mat")
    }
    return {
        "cars_train.tgz": images([path for path, _, is_test in labelled if not is_test]),
        "cars_test.tgz": images([path for path, _, _ in test]),
        "car_devkit.tgz": kit,
        "cars_test_annos_withlabels.mat": write_mat(annotations=structs(**columns)),
    }


def by_name(catalogue):
    return Counter((item.class_name, item.official) for item in catalogue.items)


def expected_by_name(labelled, names):
    halves = ["train"] * 98 + ["test"] * 98
    return Counter((names[label - 1], halves[label - 1]) for _, label, _ in labelled)


def test_one_table(one_table, labelled, names, tmp_path):
    catalogue = imported(tmp_path, "cars196", cars196_catalogue, one_table)
    assert by_name(catalogue) == expected_by_name(labelled, names)
    assert Counter(item.official for item in catalogue.items) == EXPECTED
    found = {item.source: item.class_name for item in catalogue.items}
    assert found["car_ims/000001.jpg"] == "Audi TTS Coupe 2012" == names[13]


def test_two_folders(two_folders, labelled, names, tmp_path):
    catalogue = imported(tmp_path, "cars196", cars196_catalogue, two_folders)
    assert {(item.source, item.class_name) for item in catalogue.items} == {
        (path, names[label - 1]) for path, label, _ in labelled
    }
    assert by_name(catalogue) == expected_by_name(labelled, names)
    assert pixels(catalogue, catalogue.items[-1]).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"no table", "cars_annos.mat: must be a MATLAB table with class_names"),
        (
            write_mat(class_names=np.array(["a"], object)[None]),
            "a MATLAB table with annotations.relative_im_path",
        ),
    ],
)
def test_a_broken_table_is_refused(tmp_path, table, message):
    archives = {"car_ims.tgz": images(["car_ims/000001.jpg"]), "cars_annos.mat": table}
    with pytest.raises(DataError, match=message):
        imported(tmp_path, "cars196", cars196_catalogue, archives)


def test_a_class_without_a_name_is_refused(tmp_path):
    columns = {"relative_im_path": ["car_ims/000001.jpg"], "class": [2]}
    table = write_mat(annotations=structs(**columns), class_names=np.array(["a"], object)[None])
    archives = {"car_ims.tgz": images(["car_ims/000001.jpg"]), "cars_annos.mat": table}
    with pytest.raises(DataError, match="its class must be 1 to 1, got 2"):
        imported(tmp_path, "cars196", cars196_catalogue, archives)
