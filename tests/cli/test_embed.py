"""`dmlcore embed`: the embeddings that the trial stored of the same images, broken images named."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from dmlcore.cli import app
from dmlcore.cli.options import INCOMPLETE, WRONG_INPUT
from dmlcore.records import RecordFolder
from dmlcore.training.store import TrialStore
from tests.cli.trained import KEY, VARIANTS, trained_checkout


def call(*arguments):
    return CliRunner().invoke(app, ["embed", *map(str, arguments)])


@pytest.fixture(scope="module", params=VARIANTS)
def checkout(request, tmp_path_factory):
    return trained_checkout(tmp_path_factory.mktemp("checkout"), request.param)


def test_the_embeddings_are_those_that_the_trial_stored(checkout, tmp_path):
    out = tmp_path / "e.npy"
    done = call(checkout / "images", "--trial", KEY, "--study", checkout, "--out", out)
    assert done.exit_code == 0, done.output
    (record,) = RecordFolder(checkout / "state" / "records").all()
    store = TrialStore(checkout / "state" / "storage" / KEY, record.files)
    stored = store.load("test")["embeddings"].numpy()
    np.testing.assert_allclose(np.load(out, allow_pickle=False), stored, rtol=1e-5, atol=1e-6)
    table = pl.read_csv(tmp_path / "e.csv")
    assert table["row"].to_list() == list(range(len(stored)))
    assert [path[-7:] for path in table["path"]] == [f"{i:03}.PNG" for i in range(len(stored))]


def test_broken_images_are_named_and_left_out(checkout, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    good = checkout / "images" / "0" / "003.PNG"
    out, paths = tmp_path / "e.npy", tmp_path / "paths.csv"
    done = call(broken, good, "--trial", KEY, "--study", checkout, "--out", out, "--paths", paths)
    assert done.exit_code == INCOMPLETE
    assert f"left out: {str(broken)!r}" in done.output or str(broken) in done.output
    assert "1 of 2 images embedded" in done.output
    assert np.load(out).shape == (1, 16)
    assert pl.read_csv(paths)["path"].to_list() == [str(good)]


def test_a_file_that_costs_too_much_is_named_and_left_out(checkout, tmp_path):
    sparse, good = tmp_path / "sparse.png", checkout / "images" / "0" / "003.PNG"
    with sparse.open("wb") as file:
        file.truncate(8 << 30)
    done = call(sparse, good, "--trial", KEY, "--study", checkout, "--out", tmp_path / "e.npy")
    assert done.exit_code == INCOMPLETE
    assert f"left out: {sparse}: must have at most 536,870,912 bytes, got 8,589,934,592" in done.output
    assert np.load(tmp_path / "e.npy").shape == (1, 16)


def test_a_folder_is_walked_as_the_import_walks_it(checkout, tmp_path):
    """Linked class folders were left out, and files in hidden folders embedded."""
    folder = tmp_path / "photographs"
    for name in ("b", "b/deeper", ".hidden"):
        (folder / name).mkdir(parents=True)
        shutil.copy(checkout / "images" / "0" / "003.PNG", folder / name / "1.png")
    shutil.copy(folder / "b" / "1.png", folder / "b" / "._1.png")
    (folder / "a").symlink_to("b")
    (folder / "b" / "notes.txt").touch()
    out = tmp_path / "e.npy"
    done = call(folder, "--trial", KEY, "--study", checkout, "--out", out)
    assert done.exit_code == 0, done.output
    below = [path[len(str(folder)) + 1 :] for path in pl.read_csv(tmp_path / "e.csv")["path"]]
    assert below == ["a/1.png", "a/deeper/1.png", "b/1.png", "b/deeper/1.png"]
    assert "2 file(s) are no images, first: " in done.output


def test_names_and_links_are_refused_before_anything_is_written(checkout, tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    good = checkout / "images" / "0" / "003.PNG"
    shutil.copy(good, os.path.join(os.fsencode(folder), b"\xff.png"))  # noqa: PTH118 - bytes on purpose
    arguments = ("--trial", KEY, "--study", checkout, "--out", tmp_path / "e.npy")
    for given in (folder, Path(os.fsdecode(os.path.join(os.fsencode(folder), b"\xff.png")))):  # noqa: PTH118
        done = call(given, *arguments)
        assert done.exit_code == WRONG_INPUT
        assert "a name must be UTF-8 text in one line" in done.output
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "elsewhere").symlink_to(checkout / "images" / "0")
    assert "elsewhere: a link must not lead out of" in call(folder, *arguments).output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photographs"]


def test_both_outputs_are_written_or_none(checkout, tmp_path):
    good = checkout / "images" / "0" / "003.PNG"
    (tmp_path / "folder").mkdir()
    out = tmp_path / "e.npy"
    for others, words in (
        (("--out", out, "--paths", tmp_path / "folder"), "must be a file to write, got a folder"),
        (("--out", tmp_path / "e.csv"), "must be two files"),
        (("--out", out, "--paths", good / "paths.csv"), "003.PNG"),
    ):
        done = call(good, "--trial", KEY, "--study", checkout, *others)
        assert done.exit_code == WRONG_INPUT
        assert words in done.output
        assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]


def test_what_cannot_be_embedded_is_refused(checkout, tmp_path):
    (tmp_path / "empty").mkdir()
    done = call(tmp_path / "empty", "--trial", KEY, "--study", checkout)
    assert done.exit_code == WRONG_INPUT
    assert "folder with images" in done.output
    (tmp_path / "b.png").write_bytes(b"")
    done = call(tmp_path / "b.png", "--trial", KEY, "--study", checkout, "--out", tmp_path / "e.npy")
    assert done.exit_code == WRONG_INPUT
    assert "none of the 1 images" in done.output
    assert not (tmp_path / "e.npy").exists()
