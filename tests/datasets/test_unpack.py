import gzip
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire import unpack
from dmlcore.datasets.acquire.sources import Archive
from dmlcore.datasets.acquire.unpack import members
from tests.datasets.published import write_tar, write_zip

NOISE = np.random.default_rng(0).bytes(4000)
FILES = {"root/list.txt": b"a\nb\n", "root/images/a.jpg": NOISE, "root/images/b.jpg": NOISE[::-1]}


def archive(file, **changes):
    bounds = {"unpacked_bytes": 50_000, "members": 10, "note": "made by a test"}
    return Archive(file=file, **(bounds | changes))


def unpacked(path, **changes):
    return dict(members(archive(path.name, **changes), path))


def write(path, files=FILES):
    (write_zip if path.suffix == ".zip" else write_tar)(path, files)
    return path


KINDS = ["a.zip", "a.tar", "a.tar.gz", "a.tgz"]


@pytest.mark.parametrize("name", KINDS)
def test_members_come_in_the_order_of_the_archive(tmp_path, name):
    assert list(unpacked(write(tmp_path / name)).items()) == list(FILES.items())


@pytest.mark.parametrize("name", KINDS)
def test_kept_are_the_named_members_without_hidden_ones(tmp_path, name):
    hidden = {"root/._a.jpg": b"x", "__MACOSX/root/a.jpg": b"x", ".git/a.jpg": b"x"}
    path = write(tmp_path / name, {f"./{key}": value for key, value in (hidden | FILES).items()})
    assert unpacked(path, keep=("*.jpg",)) == {key: FILES[key] for key in FILES if key.endswith("jpg")}


def zip_of(folder, members):
    write_zip(folder / "outer.zip", members)
    return folder / "outer.zip"


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_tar_within_a_zip(tmp_path, name):
    tar = write(tmp_path / name).read_bytes()
    path = zip_of(tmp_path, {f"top/{name}": tar, "top/other.txt": b"", f"__MACOSX/top/._{name}": b""})
    assert unpacked(path, inner=f"*{name}") == FILES
    with pytest.raises(DataError, match=r"member '\*.tgz': must occur once, got \[\]"):
        unpacked(path, inner="*.tgz")


@pytest.mark.parametrize("fault", ["bomb", "cut", "zeros", "flipped"])
def test_a_bad_tar_within_a_zip_is_refused(tmp_path, fault):
    files = FILES | ({"zeros.jpg": bytes(50_001)} if fault == "bomb" else {})
    tar = write(tmp_path / "a.tar.gz", files).read_bytes()
    tar = {"cut": tar[:-100], "zeros": tar + bytes(60_000)}.get(fault, tar)
    path = zip_of(tmp_path, {"a.tar.gz": tar})
    if fault == "flipped":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
    message = "must unpack to at most 50,000 bytes" if fault in ("bomb", "zeros") else "damaged or truncated"
    with pytest.raises(DataError, match=message):
        unpacked(path, inner="*.tar.gz")


def test_single_files(tmp_path):
    (tmp_path / "plain.mat").write_bytes(NOISE)
    (tmp_path / "images.gz").write_bytes(gzip.compress(NOISE))
    assert unpacked(tmp_path / "plain.mat") == {"plain.mat": NOISE}
    assert unpacked(tmp_path / "images.gz") == {"images": NOISE}


@pytest.mark.parametrize("name", KINDS)
def test_a_pattern_that_nothing_matches_is_refused(tmp_path, name):
    with pytest.raises(DataError, match=rf"{name}: must hold a member 'root/labels.txt', got none"):
        unpacked(write(tmp_path / name), keep=("*.jpg", "root/labels.txt"))


@pytest.mark.parametrize("name", [*KINDS, "images.gz"])
@pytest.mark.parametrize("share", [0.02, 0.4, 0.7, 0.9, 0.99])
def test_truncated_archives_are_refused(tmp_path, name, share):
    path = tmp_path / name
    if name == "images.gz":
        path.write_bytes(gzip.compress(NOISE))
    else:
        write(path)
    whole = path.read_bytes().rstrip(b"\0") if name == "a.tar" else path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(
        DataError, match=rf"{name}, member '.*': damaged or truncated: .*; get the archive again"
    ):
        unpacked(path)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_tar_that_ends_between_two_members_is_refused(tmp_path, name):
    # Python's tarfile takes the end of the file for the end of the archive.
    write(tmp_path / "whole.tar")
    with tarfile.open(tmp_path / "whole.tar") as whole:
        cut = (tmp_path / "whole.tar").read_bytes()[: whole.getmembers()[1].offset]
    (tmp_path / name).write_bytes(cut if name == "a.tar" else gzip.compress(cut))
    with pytest.raises(DataError, match="no end of archive"):
        unpacked(tmp_path / name)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_flipped_byte_is_refused(tmp_path, name):
    data = bytearray(write(tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match="damaged or truncated"):
        unpacked(tmp_path / name)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
@pytest.mark.parametrize("member", ["/etc/passwd", "../up.jpg", "root/../../up.jpg", "root/new\nline.jpg"])
def test_names_out_of_the_folder_are_refused(tmp_path, name, member):
    path = write(tmp_path / name, FILES | {member: b"x"})
    with pytest.raises(
        DataError, match=r"a name must be text in one line and lead into the archive's folder"
    ):
        unpacked(path)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    special = tarfile.TarInfo("root/images/c.jpg")
    special.type, special.linkname = kind, "/etc/passwd"
    write_tar(tmp_path / "a.tar.gz", FILES, special)
    with pytest.raises(
        DataError, match=r"member 'root/images/c.jpg': must be a file or a folder, got a link, a device"
    ):
        unpacked(tmp_path / "a.tar.gz")


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o060666, 0o010666])
def test_links_and_devices_in_a_zip_are_refused(tmp_path, mode):
    member = zipfile.ZipInfo("root/images/c.jpg")
    member.external_attr = mode << 16
    with zipfile.ZipFile(write(tmp_path / "a.zip"), "a") as file:
        file.writestr(member, "/etc/passwd")
    with pytest.raises(
        DataError, match=r"'root/images/c.jpg': must be a file or a folder, got a link, a device"
    ):
        unpacked(tmp_path / "a.zip")


def test_sparse_files_are_refused(tmp_path):
    member = tarfile.TarInfo("zeros.jpg")
    member.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[386:398] = b"00000000000\0"  # One hole of 1 TB up to the real size.
    header[398:410] = b"00000000000\0"
    header[483:495] = b"77777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(DataError, match=r"'zeros.jpg': .*sparse file"):
        unpacked(tmp_path / "a.tar")


@pytest.mark.parametrize("name", KINDS)
def test_a_name_that_stands_twice_is_refused(tmp_path, name):
    path = write(tmp_path / name, FILES | {"./root/list.txt": b"other"})
    with pytest.raises(DataError, match=r"member 'root/list.txt': a name must occur once"):
        unpacked(path)


@pytest.mark.parametrize("name", [*KINDS, "zeros.gz"])
def test_bombs_are_refused_by_what_comes_out(tmp_path, name):
    path = tmp_path / name
    if name == "zeros.gz":
        path.write_bytes(gzip.compress(bytes(50_001)))
    else:
        write(path, FILES | {"zeros.jpg": bytes(50_001)})
    with pytest.raises(
        DataError, match=r"must unpack to at most 50,000 bytes; it holds more, so it is a zip bomb"
    ):
        unpacked(path)


def test_many_small_members_are_a_bomb_too(tmp_path):
    files = {f"{number}.jpg": bytes(6_000) for number in range(9)}
    with pytest.raises(DataError, match=r"member '8.jpg': the archive must unpack to at most 50,000 bytes"):
        unpacked(write(tmp_path / "a.zip", files))


def test_what_is_left_out_of_a_tar_counts_too(tmp_path):
    path = write(tmp_path / "a.tar.gz", FILES | {"zeros.bin": bytes(50_001)})
    with pytest.raises(DataError, match="at most 50,000 bytes"):
        unpacked(path, keep=("*.jpg",))


def test_zeros_after_the_end_of_a_tar_count_too(tmp_path):
    tar = write(tmp_path / "whole.tar").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar + bytes(50_000)))
    with pytest.raises(DataError, match="at most 50,000 bytes"):
        unpacked(tmp_path / "a.tar.gz")


def test_a_zip_that_understates_its_members_is_refused(tmp_path):
    path = write(tmp_path / "a.zip", {"zeros.jpg": bytes(100_000)})
    data = path.read_bytes().replace(struct.pack("<L", 100_000), struct.pack("<L", 10))
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"'zeros.jpg': damaged or truncated"):
        unpacked(path)


def test_too_large_a_member_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "LARGEST_MEMBER", 3_999)
    with pytest.raises(DataError, match=r"'root/images/a.jpg': must have at most 3,999 bytes"):
        unpacked(write(tmp_path / "a.zip"))


@pytest.mark.parametrize("name", KINDS)
def test_too_many_members_are_refused(tmp_path, name):
    path = write(tmp_path / name, {f"{number}.txt": b"" for number in range(11)})
    with pytest.raises(DataError, match=r"member '10.txt': the archive must hold at most 10 members"):
        unpacked(path)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_archive_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"<!DOCTYPE html>" * 100)
    with pytest.raises(DataError, match="damaged or truncated"):
        unpacked(tmp_path / name)


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_too_large_a_header_is_refused(tmp_path, name, format):
    with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w", format=format) as tar:
        tar.addfile(tarfile.TarInfo("root/list.txt"))
        tar.addfile(tarfile.TarInfo("root/" + "x" * 1_100_000))
    with pytest.raises(DataError, match=r"a header must have at most 1,048,576 bytes, got 1,1\d\d,\d\d\d"):
        unpacked(tmp_path / name, unpacked_bytes=10**8)


def test_an_encrypted_zip_is_refused(tmp_path):
    data = bytearray(write(tmp_path / "a.zip").read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"'root/list.txt': damaged or truncated: RuntimeError\(.*encrypted"):
        unpacked(tmp_path / "a.zip")
