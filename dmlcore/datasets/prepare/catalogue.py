"""What a kind of data set hands to preprocessing: its images by name, and a way to read each one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.image_decoding import Pixels
from dmlcore.datasets.acquire.raw_tar import IMAGES_TAR, RawTar
from dmlcore.datasets.acquire.sources import SOURCE, Counts, Part, Source, read_source


def encoded_catalogue(pack: RawTar, items: Sequence[Item], *, description: str, licence: str) -> Catalogue:
    """The catalogue of images that lie encoded (JPEG, PNG, ...) in a pack under the `source` of their item."""

    def read(item: Item) -> bytes:
        return pack.read(item.source)

    return Catalogue(tuple(items), read, channels=3, description=description, licence=licence)


def check_counts(items: Sequence[Item], source: Source) -> None:
    """Refuse items whose numbers of images, classes or queries are not the published ones.

    Raises:
        DataError: with every number that differs.
    """
    faults = [fault for part, counts in source.expected.items() for fault in _faults(items, part, counts)]
    if faults:
        raise DataError(f"not the published data set: {'; '.join(faults)}; get the archives again")


def _faults(items: Sequence[Item], part: Part, counts: Counts) -> Iterator[str]:
    chosen = [item for item in items if part in ("all", item.official)]
    found = {
        "images": len(chosen),
        "classes": len({item.class_name for item in chosen}),
        "queries": sum(item.role == "query" for item in chosen),
    }
    expected = {"images": counts.images, "classes": counts.classes, "queries": counts.queries or 0}
    for name, number in expected.items():
        if found[name] != number:
            yield f"{part} must have {number:,} {name}, got {found[name]:,}"


Half = Literal["train", "test"]
Role = Literal["both", "query", "gallery"]


@dataclass(frozen=True, slots=True)
class Item:
    """One image before it is read."""

    class_name: str
    super_class: str
    source: str
    """Where it comes from, unique in the data set: the path in the user's folder, or the character and face."""
    split_text: str
    """What the `hashed` rule hashes for this item's class."""
    role: Role = "both"
    """In evaluation: a query, in the gallery that queries search, or both."""
    official: Half | None = None
    """The half of the published class-disjoint split that its class lies in; None: no split was published."""


@dataclass(frozen=True)
class Catalogue:
    """All images of a data set."""

    items: tuple[Item, ...]
    read: Callable[[Item], Pixels | bytes]
    """One image, called from several threads at once. Bytes: a photograph's file as it was published, which
    preprocessing decodes and resizes. Pixels, uint8 [H, W, C]: drawings and small images, stored at this size."""
    channels: int
    """C of what is stored `raw`; 1 makes photographs grey."""
    description: str
    licence: str
    class_texts: Mapping[str, str] | None = None
    """A sentence or more about each class, for language guidance; None: its name is all."""


def imported_catalogue(raw: Path, items_of: Callable[[RawTar], Sequence[Item]]) -> Catalogue:
    """The catalogue of a data set whose images lie encoded in `raw/images.tar`.

    Args:
        raw: folder that `download` wrote.
        items_of: the data set's own reading of its lists; `Item.source` is the image's name in the pack.

    Raises:
        DataError: a list is absent or breaks its format, an image is absent, or the counts are not the published ones.
    """
    pack, source = RawTar.open(raw / IMAGES_TAR), read_source(raw / SOURCE)
    items = items_of(pack)
    check_images(items, pack)
    check_counts(items, source)
    return encoded_catalogue(pack, items, description=source.description, licence=source.licence)


def check_images(items: Sequence[Item], pack: RawTar) -> None:
    """Refuse a list that names an image twice, or one that is not there.

    Raises:
        DataError: with the first such image.
    """
    seen: set[str] = set()
    for item in items:
        if item.source in seen:
            raise DataError(f"{item.source!r}: the lists must name an image once, got it twice")
        seen.add(item.source)
    if absent := sorted(seen - pack.places.keys()):
        raise DataError(f"{len(absent)} listed image(s) are not in the archives, the first is {absent[0]!r}")


def read_rows(pack: RawTar, name: str, columns: int, *, skip: int = 0) -> Iterator[list[str]]:
    """The rows of a list file: fields with blanks between them, the last one to the end of the line.

    Args:
        pack: the raw files.
        name: of the list in the pack.
        columns: that each row must have.
        skip: lines of the head.

    Raises:
        DataError: no such list, no UTF-8 text, or a line with other columns, with its number.
    """
    try:
        lines = pack.read(name).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: must be UTF-8 text: {error}") from None
    for number, line in enumerate(lines[skip:], start=skip + 1):
        fields = line.strip().split(maxsplit=columns - 1)
        if fields and len(fields) != columns:
            raise DataError(f"{name}, line {number}: must have {columns} columns, got {line!r}")
        if fields:
            yield fields


def read_table(pack: RawTar, name: str) -> dict[str, str]:
    """A list file of two columns as a mapping, in its order.

    Raises:
        DataError: as `read_rows`, or a key stands twice.
    """
    table: dict[str, str] = {}
    for key, value in read_rows(pack, name, 2):
        if key in table:
            raise DataError(f"{name}: a number must stand once, got {key!r} twice")
        table[key] = value
    return table


def whole_number(text: str, name: str) -> int:
    """A number from a list file.

    Raises:
        DataError: it is none.
    """
    if not text.isdecimal():
        raise DataError(f"{name}: must be a whole number, got {text!r}")
    return int(text)
