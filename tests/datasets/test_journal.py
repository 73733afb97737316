import pytest

from dmlcore.datasets.prepare.journal import BATCH, EncodedImage, Journal, unpack_hashes


def image(number):
    return EncodedImage(bytes([number % 256]) * (number % 7 + 1), 2, 3, bytes([number % 256]) * 16)


IMAGES = [image(number) for number in range(BATCH + 10)]
BROKEN = EncodedImage(b"", 0, 0, bytes(16), error="'a, \"b\"': cut\nshort")


def write(folder, images, fingerprint="one"):
    journal = Journal(folder, "images.bin", fingerprint)
    list(journal.append(images))
    return journal


def test_the_table_tells_of_each_image(tmp_path):
    table = write(tmp_path, [*IMAGES, BROKEN]).table()
    assert table["sha256"].to_list()[:-1] == [image.sha256 for image in IMAGES]
    assert table["length"].to_list() == [len(image.data) for image in IMAGES] + [0]
    assert table["error"].to_list() == [""] * len(IMAGES) + ["'a, \"b\"': cut short"]
    assert unpack_hashes(table)[3].tolist() == [3] * 16
    assert (tmp_path / "images.bin").read_bytes() == b"".join(image.data for image in IMAGES)


def test_an_empty_journal_has_no_images(tmp_path):
    journal = Journal(tmp_path, "images.bin", "one")
    assert (journal.count, journal.broken, journal.table().height) == (0, 0, 0)


def test_going_on_gives_the_same_bytes(tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    whole.mkdir()
    halves.mkdir()
    write(whole, [BROKEN, *IMAGES])
    write(halves, [BROKEN, *IMAGES[:20]])
    again = Journal(halves, "images.bin", "one")
    assert (again.count, again.broken) == (21, 1)
    list(again.append(IMAGES[20:]))
    for name in ("images.bin", "journal.csv"):
        assert (whole / name).read_bytes() == (halves / name).read_bytes()


@pytest.mark.parametrize("lost", [1, 2, 5, 9])
def test_rows_whose_bytes_are_lost_are_dropped(tmp_path, lost):
    write(tmp_path, IMAGES[:10])
    images = tmp_path / "images.bin"
    images.write_bytes(images.read_bytes()[:-lost])
    kept = Journal(tmp_path, "images.bin", "one").count
    sizes = [len(image.data) for image in IMAGES[:10]]
    assert sum(sizes[:kept]) == images.stat().st_size
    assert sum(sizes[: kept + 1]) > sum(sizes) - lost


def test_what_was_written_when_the_consumer_stops_is_kept(tmp_path):
    writing = Journal(tmp_path, "images.bin", "one").append(IMAGES)
    for _ in range(5):
        next(writing)
    writing.close()
    assert Journal(tmp_path, "images.bin", "one").count == 5


def test_another_fingerprint_starts_anew(tmp_path):
    write(tmp_path, IMAGES)
    assert Journal(tmp_path, "images.bin", "two").count == 0
    assert (tmp_path / "images.bin").stat().st_size == 0
    assert Journal(tmp_path, "images.bin", "one").count == 0
