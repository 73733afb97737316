import hashlib

import pytest

from dmlcore.core.hashing import file_sha256
from dmlcore.core.io import atomic_folder


def fill(folder, text):
    with atomic_folder(folder) as temporary:
        (temporary / "a").write_text(text)
        return temporary


def test_a_finished_block_replaces_what_was_there(tmp_path):
    fill(tmp_path / "out", "old")
    (tmp_path / "out" / "left over").touch()
    fill(tmp_path / "out", "new")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]
    assert (tmp_path / "out/a").read_text() == "new"


def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path):
    fill(tmp_path / "out", "old")
    with pytest.raises(TypeError):
        fill(tmp_path / "out", 3)
    assert (tmp_path / "out/a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_run_left_is_cleared(tmp_path):
    temporary = fill(tmp_path / "out", "old")
    temporary.mkdir()
    (temporary / "half").touch()
    fill(tmp_path / "out", "new")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


def test_file_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
