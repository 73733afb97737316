import hashlib

import pytest

from dmlcore.core.errors import DiskFullError, full_disk
from dmlcore.core.hashing import file_sha256
from dmlcore.core.io import atomic_folder, atomic_write_path, write_atomically, write_together
from tests.disks import fill as fill_disk
from tests.disks import mounted


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


def test_files_appear_together_or_not_at_all_on_a_full_disk(tmp_path):
    with mounted(tmp_path / "disk", 1_000_000) as disk:
        write_together(disk, {"a": "old a", "b": "old b"})
        with pytest.raises(
            DiskFullError, match=r"disk/c of 800,000 bytes cannot be written: the disk is full, \d"
        ) as full:
            write_together(disk, {"a": "new a", "b": b"x" * 400_000, "c": b"x" * 800_000, "d": "new d"})
        assert "\n" not in str(full.value)
        assert sorted(path.name for path in disk.iterdir()) == ["a", "b"]
        assert [(disk / name).read_text() for name in "ab"] == ["old a", "old b"]
        write_together(disk, {"a": "new a", "b": "new b"})
        assert [(disk / name).read_text() for name in "ab"] == ["new a", "new b"]


def test_a_disk_without_room_for_a_name_is_told_too(tmp_path):
    with mounted(tmp_path / "disk", 1_000_000) as disk:
        fill_disk(disk, 0)
        with pytest.raises(DiskFullError, match="the disk is full"):
            write_atomically(disk / "new" / "a", "text")
        with (
            pytest.raises(DiskFullError, match="the disk is full"),
            atomic_write_path(disk / "b") as temporary,
        ):
            temporary.write_text("x" * 8192)


def test_other_errors_of_the_system_stay_as_they_are(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        write_atomically(tmp_path / "file" / "a", "text")
    denied = PermissionError(13, "Permission denied")
    assert full_disk(denied, tmp_path) is denied


def test_a_link_in_the_way_of_a_write_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "a").symlink_to(tmp_path / "mine")
    write_atomically(tmp_path / "a", "new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "a").read_text() == "new"
