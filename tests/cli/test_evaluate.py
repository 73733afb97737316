"""`dmlcore evaluate`: what the Python API has, from files, and each wrong option as one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from dmlcore.cli import app
from dmlcore.cli.arrays import read_groups, read_is_query
from dmlcore.cli.evaluate import parse_ks
from dmlcore.cli.options import WRONG_INPUT, parse_memory
from dmlcore.metrics.evaluation import evaluate


def write_text(path, values):
    path.write_text("".join(f"{value}\n" for value in values))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Files of 25 classes x 8 images, of which some are junk, and what is in them."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("images")
    y = np.repeat(np.arange(-1, 24), 8)
    x = (rng.normal(size=(25, 16))[y + 1] + 0.8 * rng.normal(size=(200, 16))).astype(np.float32)
    query, group = np.arange(200) % 8 < 3, np.array([*"abcde"])[np.arange(200) % 5]
    for name, part in (("q", query), ("g", ~query)):
        np.save(folder / f"{name}.npy", x[part])
        np.save(folder / f"{name}_labels.npy", y[part])
        write_text(folder / f"{name}_groups.txt", group[part])
    np.save(folder / "x.npy", x)
    write_text(folder / "y.txt", y)
    write_text(
        folder / "groups.csv", ["path,camera", *(f"{row}.png,{name}" for row, name in enumerate(group))]
    )
    np.save(folder / "mask.npy", query)
    np.save(folder / "flat.npy", x[:, 0])
    return folder, x, y, query, group


def call(folder, *arguments):
    paths = [f"{folder / word}" if "." in word and not word[0].isdigit() else word for word in arguments]
    return CliRunner().invoke(app, ["evaluate", *paths])


ALL = ("--embeddings", "x.npy", "--labels", "y.txt", "--ignore-label", "-1", "--groups", "groups.csv")
MASK = (*ALL, "--is-query", "mask.npy")
QUERIES = (
    "--embeddings",
    "q.npy",
    "--labels",
    "q_labels.npy",
    "--groups",
    "q_groups.txt",
    "--ignore-label",
    "-1",
)
GALLERY = ("--gallery", "g.npy", "--gallery-labels", "g_labels.npy", "--gallery-groups", "g_groups.txt")
TWO = (*QUERIES, *GALLERY)
SETTINGS = (
    *("--ks", "1, 5,20", "--far-range", "0.02", "0.2", "--num-thresholds", "11", "--epsilon", "0.3"),
    *("--bootstrap", "20", "--seed", "3", "--memory", "64MiB", "--device", "cpu"),
)


@pytest.mark.parametrize("files", [ALL, MASK, TWO], ids=["all", "mask", "two files"])
def test_the_numbers_of_the_library(images, tmp_path, files):
    folder, x, y, query, group = images
    done = call(folder, *files, *SETTINGS, "--json", f"{tmp_path / 'm.json'}")
    assert done.exit_code == 0, done.output
    want = evaluate(
        x,
        y,
        is_query=None if files is ALL else query,
        groups=group,
        ignore_label=-1,
        ks=(1, 5, 20),
        far_range=(0.02, 0.2),
        num_thresholds=11,
        epsilon=0.3,
        bootstrap=20,
        seed=3,
    ).metrics
    assert json.loads((tmp_path / "m.json").read_text()) == pytest.approx(want)
    assert want["num_images_ignored"] == 8
    assert want["opis_low"] < want["opis_high"]


def test_a_range_of_distances(images, tmp_path):
    folder, x, y, _, group = images
    done = call(folder, *ALL, "--distance-range", "0.5", "1.25", "--json", f"{tmp_path / 'm.json'}")
    assert done.exit_code == 0, done.output
    want = evaluate(x, y, groups=group, ignore_label=-1, distance_range=(0.5, 1.25)).metrics
    assert json.loads((tmp_path / "m.json").read_text()) == pytest.approx(want)


def test_queries_with_positives_in_their_own_group_only_are_named(images, tmp_path):
    folder, _, y, *_ = images
    np.save(tmp_path / "one.npy", np.where(y == 3, 0, np.arange(len(y))))
    done = call(folder, *ALL[:-1], f"{tmp_path / 'one.npy'}")
    assert done.exit_code == 0, done.output
    assert "note: 8 queries have all images of their class in their own group: left out" in done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((*ALL, "--ks", "1,x"), "--ks must be whole numbers separated by commas, as 1,10,100, got '1,x'"),
        ((*ALL, "--ks", "0"), "ks must be integers of at least 1, got (0,)"),
        ((*ALL, "--memory", "lots"), "--memory must be a number of bytes, as 500MiB or 2GiB, got 'lots'"),
        ((*ALL, "--memory", "1MiB"), "--memory must be at least 16MiB, got '1MiB'"),
        ((*ALL, "--device", "cuda:99"), "device must be one of this machine, cpu or cuda:0, got 'cuda:99'"),
        ((*ALL, "--device", "gpu"), "device must be one of this machine, cpu or cuda:0, got 'gpu'"),
        ((*ALL, "--far-range", "0.5", "0.1"), "far_range must satisfy 0 <= first <= second <= 1"),
        ((*ALL, "--num-thresholds", "1"), "num_thresholds must be at least 2"),
        (
            (*ALL, "--ignore-label", "junk"),
            "--ignore-label must be an integer, as those of --labels are, got 'junk'",
        ),
        ((*ALL, "--gallery", "g.npy"), "--gallery and --gallery-labels belong together"),
        ((*TWO, "--is-query", "mask.npy"), "give --is-query, or --gallery with --gallery-labels, not both"),
        (TWO[:-2], "--gallery-groups goes with --gallery and --groups"),
        ((*ALL, "--gallery-groups", "g_groups.txt"), "--gallery-groups goes with --gallery and --groups"),
        (
            (*ALL, "--is-query", "y.txt"),
            "must say query or gallery (or true or false, 1 or 0) for each image, row 0",
        ),
        ((*ALL, "--is-query", "q_groups.txt"), "row 0 is 'a'"),
        ((*ALL, "--is-query", "x.npy"), "x.npy must be [N], one value for each image, got [200, 16]"),
        ((*ALL, "--groups", "q_groups.txt"), "q_groups.txt must have one group for each of the 200 rows of"),
        ((*ALL, "--labels", "q_labels.npy"), "q_labels.npy must have one label for each of the 200 rows of"),
        ((*ALL, "--labels", "x.npy"), "--labels: labels must be integers or texts, got float32"),
        (
            (*ALL, "--embeddings", "q_labels.npy"),
            "--embeddings: embeddings must be floating point, got int64",
        ),
        ((*ALL, "--embeddings", "flat.npy"), "flat.npy must be [N, D], one row per image, got [200]"),
        ((*ALL, "--groups", "none.txt"), "none.txt"),
        (
            (*TWO, "--gallery-labels", "g_groups.txt"),
            "--labels and --gallery-labels must both be integers of one type or both be names, got int64 and <U1",
        ),
        (
            (*TWO, "--gallery-labels", "q_labels.npy"),
            "q_labels.npy must have one label for each of the 125 rows of",
        ),
        ((*TWO, "--gallery", "mask.npy"), "--gallery: embeddings must be floating point, got bool"),
    ],
)
def test_what_is_wrong_is_one_line(images, options, message):
    done = call(images[0], *options)
    assert done.exit_code == WRONG_INPUT, done.output
    lines = done.output.splitlines()
    assert len(lines) == 1, lines
    assert message in lines[0]


def test_queries_and_gallery_of_two_widths_are_refused(images, tmp_path):
    folder = images[0]
    np.save(tmp_path / "wide.npy", np.zeros((125, 17), np.float32) + 1)
    done = call(folder, *TWO, "--gallery", f"{tmp_path / 'wide.npy'}")
    assert done.exit_code == WRONG_INPUT
    assert "--embeddings and --gallery must have one width, got [75, 16] and [125, 17]" in done.output


@pytest.mark.parametrize("values", ["1 0 0 1", "true False FALSE True", "query gallery gallery query"])
def test_a_mask_may_be_written_in_words(tmp_path, values):
    write_text(tmp_path / "mask.txt", values.split())
    assert read_is_query(tmp_path / "mask.txt").tolist() == [True, False, False, True]
    (tmp_path / "mask.csv").write_text(
        "path,role\n" + "".join(f"a.png,{value}\n" for value in values.split())
    )
    assert read_is_query(tmp_path / "mask.csv").tolist() == [True, False, False, True]
    for name in ("", "is_query\n", "role\n"):
        (tmp_path / "mask.csv").write_text(name + "\n".join(values.split()))
        assert read_is_query(tmp_path / "mask.csv").tolist() == [True, False, False, True]


def test_groups_are_numbers_or_names(tmp_path):
    (tmp_path / "g.csv").write_text("label,group\n3,1\n3,2\n")
    assert np.asarray(read_groups(tmp_path / "g.csv")).tolist() == [1, 2]
    write_text(tmp_path / "g.txt", ["group", "north", "south"])
    assert np.asarray(read_groups(tmp_path / "g.txt")).tolist() == ["group", "north", "south"]


def test_numbers_in_texts():
    assert parse_ks(" 1,10 , 100") == (1, 10, 100)
    found = [parse_memory(text) for text in ("16777216", "16384.5 kib", "2GiB", "30MB")]
    assert found == [1 << 24, (1 << 24) + 512, 2**31, 30 * 10**6]
