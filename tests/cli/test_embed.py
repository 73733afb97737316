"""`dmlcore embed`: the embeddings that the trial stored of the same images, broken images named."""

from __future__ import annotations

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
