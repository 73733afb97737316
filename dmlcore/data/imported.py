"""What all importers of published data sets share: raw/NAME -> items, checked against the published counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dmlcore.data.catalogue import Catalogue, Item
from dmlcore.data.errors import DataError
from dmlcore.data.pack import PACK, Pack, encoded_catalogue
from dmlcore.data.sources import SOURCE, check_counts, read_source


def imported_catalogue(raw: Path, items_of: Callable[[Pack], Sequence[Item]]) -> Catalogue:
    """The catalogue of a data set whose images lie encoded in `raw/images.tar`.

    Args:
        raw: folder that `download` wrote.
        items_of: the data set's own reading of its lists; `Item.source` is the image's name in the pack.

    Raises:
        DataError: a list is absent or breaks its format, an image is absent, or the counts are not the published ones.
    """
    pack, source = Pack.open(raw / PACK), read_source(raw / SOURCE)
    items = items_of(pack)
    check_images(items, pack)
    check_counts(items, source)
    return encoded_catalogue(pack, items, description=source.description, licence=source.licence)


def check_images(items: Sequence[Item], pack: Pack) -> None:
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


def read_rows(pack: Pack, name: str, columns: int, *, skip: int = 0) -> Iterator[list[str]]:
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


def read_table(pack: Pack, name: str) -> dict[str, str]:
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
