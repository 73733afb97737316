"""A user without the archives is told, for every data set, what is missing and where to put it."""

from __future__ import annotations

import json

import pytest

from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.acquire import LOCAL, acquire
from dmlcore.datasets.acquire.locate import ENVIRONMENT
from dmlcore.datasets.acquire.sources import read_source
from tests.datasets.published import SOURCES

NAMES = sorted(path.stem for path in SOURCES.glob("*.json") if path.stem not in LOCAL)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_archive_is_named_with_its_checksum_and_a_place(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "mine"))
    source = json.loads((SOURCES / f"{name}.json").read_text(encoding="utf-8"))
    for archive in source["archives"]:
        archive.pop("package", None)
        archive["urls"] = ["http://127.0.0.1:9/unreachable" for _ in archive.get("urls", [])]
    (tmp_path / "source.json").write_text(json.dumps(source), encoding="utf-8")
    with pytest.raises(DataError) as error:
        acquire(tmp_path / "source.json", tmp_path / "raw")
    assert str(tmp_path / "mine") in str(error.value)
    assert source["origin"] in str(error.value)
    for archive in source["archives"]:
        assert archive["file"] in str(error.value)
        assert all(archive[kind] in str(error.value) for kind in ("md5", "sha256") if kind in archive)
    assert not (tmp_path / "raw").exists()


def test_no_two_data_sets_share_a_file_name():
    forms = [read_source(SOURCES / f"{name}.json").forms for name in NAMES]
    files = [{archive.file for form in each for archive in form} for each in forms]
    assert sum(map(len, files)) == len(set().union(*files))
