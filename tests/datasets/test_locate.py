import hashlib
import json

import numpy as np
import pytest

from dmlcore.config.base import ConfigError
from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.locate import missing_archives, obtain, search_folders
from dmlcore.datasets.acquire.sources import Archive, Counts, Source, read_source
from tests.datasets.published import checksums

DATA = np.random.default_rng(0).bytes(300_000)
BOUNDS = {"unpacked_bytes": 10**9, "members": 10}


def archive(file, data=DATA, **changes):
    return Archive(file=file, **(BOUNDS | checksums(data) | changes))


def source(*archives, alternatives=()):
    counts = {"all": Counts(classes=1, images=1)}
    known = {
        "description": "d",
        "licence": "l",
        "licence_read": "not read",
        "origin": "Of a test.",
        "expected": counts,
    }
    return Source(archives=archives, alternatives=alternatives, **known)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("DMLCORE_ARCHIVES", str(tmp_path / "environment"))
    monkeypatch.chdir(tmp_path)
    for name in ("named", "environment", "archives"):
        (tmp_path / name).mkdir()
    return search_folders("named")


def test_the_named_folder_comes_before_the_environment_and_the_downloads(folders, tmp_path):
    one = source(archive("a.zip"))
    for folder in reversed(folders):
        (folder / "a.zip").write_bytes(DATA)
        assert obtain(one, folders) == [(one.archives[0], folder / "a.zip")]
    assert [folder.name for folder in folders] == ["named", "environment", "archives"]


def test_without_settings_there_are_the_downloads_alone(monkeypatch):
    monkeypatch.delenv("DMLCORE_ARCHIVES", raising=False)
    assert [folder.as_posix() for folder in search_folders(None)] == ["archives"]


@pytest.mark.parametrize(
    ("data", "known", "message"),
    [
        (DATA[:-1], {}, "a.zip: must have 300,000 bytes, got 299,999; get the file again"),
        (DATA[::-1], {}, f"a.zip: sha256 must be {hashlib.sha256(DATA).hexdigest()}, got "),
        (DATA[::-1], {"sha256": None}, f"a.zip: md5 must be {hashlib.md5(DATA).hexdigest()}, got "),
    ],
)
def test_another_file_is_refused(folders, data, known, message):
    (folders[1] / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match=message):
        obtain(source(archive("a.zip", **known)), folders)


def test_a_missing_archive_is_named_with_all_that_helps(folders, tmp_path):
    with pytest.raises(DataError) as error:
        obtain(source(archive("a.zip", note="from its author")), folders)
    text = str(error.value)
    known = checksums(DATA)
    for part in ("a.zip: 300,000 bytes", known["md5"], known["sha256"], "from its author", "Of a test."):
        assert part in text
    for folder in ("named", "environment", "archives"):
        assert str(tmp_path / folder) in text


def test_one_missing_archive_of_two_is_named_alone(folders):
    (folders[0] / "a.zip").write_bytes(DATA)
    with pytest.raises(DataError, match=r"1 archive\(s\) are missing") as error:
        obtain(source(archive("a.zip"), archive("b.zip")), folders)
    assert "b.zip" in str(error.value)
    assert "a.zip:" not in str(error.value)


def test_the_form_that_is_there_is_taken(folders):
    both = source(archive("a.zip"), archive("b.zip"), alternatives=((archive("c.zip"), archive("d.zip")),))
    with pytest.raises(DataError, match=r"(?s)a.zip.*b.zip.*or instead all of:.*c.zip.*d.zip"):
        obtain(both, folders)
    for name in ("c.zip", "d.zip"):
        (folders[2] / name).write_bytes(DATA)
    assert [path.name for _, path in obtain(both, folders)] == ["c.zip", "d.zip"]
    assert [absent.file for absent in missing_archives(both.archives, folders)] == ["a.zip", "b.zip"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "../a.zip"}, "String should match pattern"),
        ({"md5": "12"}, "at least 32 characters"),
        ({"md5": None, "sha256": None, "note": "n", "urls": ["https://a"]}, "must have a checksum, got none"),
        ({"md5": None, "sha256": None}, "without a checksum, `note` must say why"),
        ({"size": 1}, "Extra inputs are not permitted"),
    ],
)
def test_faults_in_a_description_are_refused(tmp_path, changes, message):
    described = source(archive("a.zip")).model_dump(mode="json")
    described["archives"][0] |= changes
    (tmp_path / "source.json").write_text(json.dumps(described))
    with pytest.raises(ConfigError, match=message):
        read_source(tmp_path / "source.json")


@pytest.mark.parametrize("text", ["", "[", None])
def test_what_is_no_description_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "source.json").write_text(text)
    with pytest.raises(DataError, match="must be the JSON description of a data set"):
        read_source(tmp_path / "source.json")
