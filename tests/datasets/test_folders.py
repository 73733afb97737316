"""Archives that are unpacked in a folder, or in an installed package."""

from __future__ import annotations

import hashlib

import pytest

from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.folders import folder_sha256
from dmlcore.datasets.acquire.locate import locate, verify
from dmlcore.datasets.acquire.sources import Archive
from dmlcore.datasets.acquire.unpack import members

ARCHIVE = Archive(
    file="shop",
    folder=True,
    note="made by a test",
    unpacked_bytes=10,
    members=2,
    keep=("list.csv", "images/*.jpg"),
)


@pytest.fixture
def shop(tmp_path):
    """Two files to keep, 10 bytes together, and one that no pattern names."""
    folder = tmp_path / "shop"
    (folder / "images/lemon").mkdir(parents=True)
    (folder / "images/lemon/1.jpg").write_bytes(b"photo")
    (folder / "list.csv").write_bytes(b"rows\n")
    (folder / "LICENSE").write_bytes(b"a text of many bytes")
    return folder


def test_the_kept_files_come_by_name(shop):
    assert list(members(ARCHIVE, shop)) == [("images/lemon/1.jpg", b"photo"), ("list.csv", b"rows\n")]


def test_the_checksum_is_that_of_what_sha256sum_prints(shop):
    listed = [
        (hashlib.sha256(b"photo").hexdigest(), "images/lemon/1.jpg"),
        (hashlib.sha256(b"rows\n").hexdigest(), "list.csv"),
    ]
    text = "".join(f"{digest}  {name}\n" for digest, name in listed)
    assert folder_sha256(ARCHIVE, shop) == hashlib.sha256(text.encode()).hexdigest()


def test_what_is_not_kept_changes_nothing(shop):
    pinned = ARCHIVE.model_copy(update={"sha256": folder_sha256(ARCHIVE, shop)})
    (shop / "LICENSE").unlink()
    verify(pinned, shop)
    (shop / "images/lemon/1.jpg").rename(shop / "images/lemon/2.jpg")
    with pytest.raises(DataError, match=r"shop: the sha256 of its list of files must be [0-9a-f]{64}, got"):
        verify(pinned, shop)


@pytest.mark.parametrize("bound", [{"members": 1}, {"unpacked_bytes": 9}])
def test_more_than_the_bounds_is_refused(shop, bound):
    with pytest.raises(DataError, match=r"must hold at most .* 'list.csv' is beyond that"):
        list(members(ARCHIVE.model_copy(update=bound), shop))


@pytest.mark.parametrize("target", ["/etc", "images/lemon/1.jpg"])
def test_a_link_is_refused(shop, target):
    (shop / "images/link.jpg").symlink_to(target)
    with pytest.raises(DataError, match=r"link.jpg: must be a file or a folder, got a link"):
        folder_sha256(ARCHIVE, shop)


def test_a_missing_member_is_named(shop):
    (shop / "list.csv").unlink()
    with pytest.raises(DataError, match=r"shop: must hold a member 'list.csv', got none"):
        list(members(ARCHIVE, shop))


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path, shop):
    plain = ARCHIVE.model_copy(update={"folder": False})
    assert locate(ARCHIVE, [tmp_path]) == shop
    assert locate(plain, [tmp_path]) is None


@pytest.mark.parametrize(
    ("package", "found"),
    [("dmlcore/config/sweep.py", True), ("dmlcore/absent.py", False), ("no_such_package/config.py", False)],
)
def test_an_archive_in_a_package(tmp_path, package, found):
    archive = ARCHIVE.model_copy(update={"folder": False, "package": package})
    assert (locate(archive, [tmp_path]) is not None) == found
    (tmp_path / "shop").write_bytes(b"")
    assert locate(archive, [tmp_path]) == tmp_path / "shop"  # The folders come first.
