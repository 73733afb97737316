"""What an importer hands to preprocessing: the images of a data set by name, and a way to read each one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dmlcore.core.errors import DataError
from dmlcore.core.text import text_lines
from dmlcore.data.images import Pixels
from dmlcore.datasets.acquire.raw_tar import IMAGES_TAR, RawTar
from dmlcore.datasets.acquire.sources import SOURCE, Source, read_source

BLANKS = re.compile("[ \\t]+")

Half = Literal["train", "test"]
Role = Literal["both", "query", "gallery"]


@dataclass(frozen=True, slots=True)
class Item:
    """One image before it is read."""

    class_name: str
    super_class: str
    source: str
    """Its name, unique in the data set: the path among the raw files, or the character and face."""
    split_text: str
    """What the `hashed` rule hashes for this item's class."""
    role: Role = "both"
    """In evaluation: a query, in the gallery that queries search, or both."""
    group: str = ""
    """Camera, sequence or encounter: in evaluation two images of one class and one group are no pair. All images of a
    data set have one, or none has."""
    official: Half | None = None
    """The half of the published class-disjoint split that its class belongs to; None: no split was published."""


@dataclass(frozen=True)
class Catalogue:
    """All images of a data set."""

    items: tuple[Item, ...]
    read: Callable[[Item], Pixels | bytes]
    """Reads one image; called from several threads at once. Bytes: a photograph's file as it was published, which
    preprocessing decodes and resizes. Pixels, uint8 [H, W, C]: drawings and small images, stored at this size."""
    channels: int
    """C of what is stored `raw`; 1 turns photographs grey."""
    description: str
    licence: str
    class_texts: Mapping[str, str] | None = None
    """A sentence or more about each class, for language guidance; None: only its name is known."""
    notes: tuple[str, ...] = ()
    """What the user should know of the names; printed, and kept in the summary."""


def imported_catalogue(raw: Path, items_of: Callable[[RawTar], Sequence[Item]]) -> Catalogue:
    """Build the catalogue of a published data set whose images are encoded files in `raw/images.tar`.

    Args:
        raw: folder that `download` wrote.
        items_of: reads the data set's own lists; `Item.source` is the image's name in the tar.

    Raises:
        DataError: a list is absent or breaks its format, an image is absent, or the counts are not the published ones.
    """
    tar, source = RawTar.open(raw / IMAGES_TAR), read_source(raw / SOURCE)
    items = items_of(tar)
    _check_images(items, tar)
    check_counts(items, source)
    return encoded_catalogue(tar, items, description=source.description, licence=source.licence)


def encoded_catalogue(tar: RawTar, items: Sequence[Item], *, description: str, licence: str) -> Catalogue:
    """Build the catalogue of encoded images (JPEG, PNG, ...) that are in `tar` under the `source` of their item."""
    return Catalogue(
        tuple(items), lambda item: tar.read(item.source), channels=3, description=description, licence=licence
    )


def check_counts(items: Sequence[Item], source: Source) -> None:
    """Refuse items whose numbers of images, classes, super-classes or queries are not the published ones.

    Raises:
        DataError: with every number that differs.
    """
    faults = []
    for part, counts in source.expected.items():
        chosen = [item for item in items if part in ("all", item.official)]
        numbers = {
            "images": (counts.images, len(chosen)),
            "classes": (counts.classes, len({item.class_name for item in chosen})),
            "queries": (counts.queries or 0, sum(item.role == "query" for item in chosen)),
        }
        if counts.super_classes:
            numbers["super-classes"] = (counts.super_classes, len({item.super_class for item in chosen}))
        for name, (expected, found) in numbers.items():
            if found != expected:
                faults.append(f"{part} must have {expected:,} {name}, got {found:,}")
    if faults:
        raise DataError(f"not the published data set: {'; '.join(faults)}; get the archives again")


def _check_images(items: Sequence[Item], tar: RawTar) -> None:
    """Refuse lists that name an image twice, or one that is not in the archives."""
    seen: set[str] = set()
    for item in items:
        if item.source in seen:
            raise DataError(f"{item.source!r}: the lists must name an image once, got it twice")
        seen.add(item.source)
    if absent := sorted(seen - tar.members.keys()):
        raise DataError(f"{len(absent)} listed image(s) are not in the archives, the first is {absent[0]!r}")


def read_rows(
    tar: RawTar, name: str, columns: int, *, skip: int = 0, head: Sequence[str] = ()
) -> Iterator[list[str]]:
    """Yield the rows of a list file: fields separated by spaces or tabs, the last one up to the end of the line.

    Args:
        tar: the raw files.
        name: of the list in the tar.
        columns: that each row must have.
        skip: lines to leave out.
        head: names of the columns, in the line after those; empty: the list has no such line.

    Raises:
        DataError: no such list, not UTF-8, another head, or a line with another number of columns.
    """
    lines = text_lines(tar.read(name), name)
    first = skip + bool(head)
    if (found := " ".join(lines[skip:first]).split()) != list(head):
        raise DataError(f"{name}, line {first}: must be {' '.join(head)!r}, got {' '.join(found)!r}")
    for number, line in enumerate(lines[first:], start=first + 1):
        # Not `split()`: it also splits at U+00A0, U+3000 and others that occur within a name.
        fields = [field for field in BLANKS.split(line.strip(" \t"), maxsplit=columns - 1) if field]
        if fields and len(fields) != columns:
            raise DataError(f"{name}, line {number}: must have {columns} columns, got {line!r}")
        if fields:
            yield fields


def read_table(tar: RawTar, name: str) -> dict[str, str]:
    """Return a list file of two columns as a mapping, in its order.

    Raises:
        DataError: as `read_rows`, or a key occurs twice.
    """
    table: dict[str, str] = {}
    for key, value in read_rows(tar, name, 2):
        if key in table:
            raise DataError(f"{name}: a number must occur once, got {key!r} twice")
        table[key] = value
    return table


def parse_count(text: str, name: str) -> int:
    """Parse a non-negative whole number of a list file.

    Raises:
        DataError: `text` is not one.
    """
    if not text.isdecimal():
        raise DataError(f"{name}: must be a whole number, got {text!r}")
    return int(text)
