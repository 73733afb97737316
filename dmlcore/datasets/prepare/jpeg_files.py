"""Untrusted JPEG files before they are decoded: how many scans they have, and whether only their end is missing."""

from __future__ import annotations

import io
import re

from PIL import Image

MAX_SCANS = 64
"""Progressive files have about 10. Each scan is a pass over all pixels: 1,600 of them take a minute."""

MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""A marker that ends a scan: not a data byte 0xFF, which 0 follows, and no restart marker."""

START_OF_SCAN, END = 0xDA, b"\xff\xd9"
PROGRESSIVE = "progressive"

JUNK = bytes(range(1, 128)), bytes(range(254, 127, -1))
"""What may follow a complete scan, which a decoder then skips; an incomplete one takes it for picture."""


def is_jpeg(data: bytes) -> bool:
    """Return whether a file begins as a JPEG file does."""
    return data.startswith(b"\xff\xd8\xff")


def scans(data: bytes) -> list[int]:
    """Return where the headers of the scans begin."""
    found, at = [], 2
    while marker := MARKER.search(data, at):
        at = marker.start()
        if data[at : at + 2] == END or at + 4 > len(data):
            break
        if data[at + 1] == START_OF_SCAN:
            found.append(at)
        at += 2 if data[at + 1] == 0x01 else 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    return found


def too_many_scans(data: bytes) -> bool:
    """Return whether a JPEG file has more than MAX_SCANS scans."""
    # Counting first: it takes no time, and no sound file of a camera needs the walk.
    return data.count(bytes((0xFF, START_OF_SCAN))) > MAX_SCANS and len(scans(data)) > MAX_SCANS


def with_end_marker(data: bytes) -> bytes | None:
    """Return a JPEG file of one scan with the end marker that it lacks; None: part of the picture is missing too.

    A decoder fills what is missing with grey, and does not say so. It is complete if what comes after it is no part of
    the picture. Of several scans nobody can say whether another one followed.
    """
    data = data.removesuffix(b"\xff")
    starts = scans(data)
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        layers = image.layers  # type: ignore[attr-defined]
        if PROGRESSIVE in image.info or len(starts) != 1 or data[starts[0] + 4] != layers:
            return None
    ended = data + END
    # A scan with restart markers waits for the next one, and skips all that comes before it.
    restarts = [b"".join(bytes((0xFF, 0xD0 + number)) + junk for number in range(8)) for junk in JUNK]
    pictures = {_decoded(data + junk + restart + END) for junk, restart in zip(JUNK, restarts, strict=True)}
    return ended if pictures == {_decoded(ended)} else None


def _decoded(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        return image.tobytes()
