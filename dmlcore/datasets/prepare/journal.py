"""`images.bin` while it grows: each image is appended, then a line about it to a journal next to it.

A killed run is resumed: images with a complete line in the journal are kept, everything after them is truncated.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

JOURNAL = "journal.csv"

BATCH = 256
"""Images between two flushes to disk: a kill loses at most these and what the threads hold."""

COLUMNS: dict[str, pl.DataType] = {
    "sha256": pl.String(),
    "height": pl.Int64(),
    "width": pl.Int64(),
    "length": pl.Int64(),
    "difference_hash": pl.String(),
    "error": pl.String(),
    "note": pl.String(),
}


@dataclass(frozen=True)
class EncodedImage:
    """One stored image, or the reason why it could not be read."""

    data: bytes
    height: int
    width: int
    difference_hash: bytes
    """16 bytes, see near_duplicates."""
    error: str = ""
    """Why the image is unreadable; `data` is empty then."""
    note: str = ""
    """What was done to it that its owner should know."""

    @property
    def sha256(self) -> str:
        """Hexadecimal, of the stored bytes."""
        return hashlib.sha256(self.data).hexdigest()


class Journal:
    """The images that a folder holds already, in order."""

    def __init__(self, folder: Path, images: str, fingerprint: str) -> None:
        """Resume from what is in `folder`, or start anew.

        Args:
            folder: of the journal and the images.
            images: name of the file of images.
            fingerprint: of all that the images depend on; a journal with a different fingerprint is discarded.
        """
        self.path, self.images = folder / JOURNAL, folder / images
        self.count, size, end = self._scan(fingerprint)
        if not end:
            self.path.write_text(fingerprint + "\n")
            end = self.path.stat().st_size
        self.images.touch()
        os.truncate(self.images, size)
        os.truncate(self.path, end)

    @property
    def broken(self) -> int:
        """Number of unreadable images among them."""
        return self.table().filter(pl.col("error") != "").height

    def append(self, images: Iterable[EncodedImage]) -> Iterator[EncodedImage]:
        """Append images as they come and yield each; a line is written only once its image is on disk."""
        with self.images.open("ab") as file, self.path.open("ab") as journal:
            lines: list[bytes] = []
            try:
                for image in images:
                    file.write(image.data)
                    lines.append(_line(image))
                    yield image  # Before the flush: the consumer may raise, and `finally` still keeps this image.
                    if len(lines) == BATCH:
                        _flush(file, journal, lines)
            finally:
                _flush(file, journal, lines)

    def table(self) -> pl.DataFrame:
        """Return one row per image, columns as in COLUMNS."""
        return pl.read_csv(
            self.path,
            skip_lines=1,
            has_header=False,
            schema=COLUMNS,
            empty_string_is_null=False,
            raise_if_empty=False,
        )

    def _scan(self, fingerprint: str) -> tuple[int, int, int]:
        """Return the number of complete images, their bytes, and the journal's length; 0, 0, 0 to start anew."""
        if not self.path.is_file() or not self.images.is_file():
            return 0, 0, 0
        there, count, size = self.images.stat().st_size, 0, 0
        with self.path.open("rb") as file:
            end = len(first) if (first := file.readline()) == f"{fingerprint}\n".encode() else 0
            while end and (line := file.readline()).endswith(b"\n"):  # An incomplete final line is ignored.
                length = int(line.split(b",")[3])  # Numbers and hexadecimal precede it: no quoted comma.
                if size + length > there:
                    break
                count, size, end = count + 1, size + length, end + len(line)
        return count, size, end


def unpack_hashes(table: pl.DataFrame) -> npt.NDArray[np.uint8]:
    """Return the column of difference hashes as bytes, [N, 16]."""
    joined = b"".join(table["difference_hash"].str.decode("hex"))
    return np.frombuffer(joined, np.uint8).reshape(-1, 16)


def _line(image: EncodedImage) -> bytes:
    row = (image.sha256, image.height, image.width, len(image.data), image.difference_hash.hex())
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow((*row, " ".join(image.error.split()), image.note))
    return text.getvalue().encode()


def _flush(file: io.BufferedWriter, journal: io.BufferedWriter, lines: list[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())  # Before the journal: no line may describe bytes that a crash can still lose.
    journal.writelines(lines)
    journal.flush()
    os.fsync(journal.fileno())
    lines.clear()
