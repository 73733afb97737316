"""What is known of each published data set: its archives, their checksums and the counts that its importer must find.

`data/sources/NAME.json` holds one `Source` per data set. `download` keeps a copy of it next to `images.tar`, so that
preprocessing reads nothing else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dmlcore.config.base import PositiveInt, Strict, parse, unique_keys
from dmlcore.core.errors import DataError

SOURCE = "source.json"
Part = Literal["train", "test", "all"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]+$")]


class Counts(Strict):
    classes: PositiveInt
    images: PositiveInt
    super_classes: PositiveInt | None = None
    """Of the classes, where either can be the classes (`fine_classes` of grocery)."""
    queries: PositiveInt | None = None
    """Of the images, those that search; the rest are the gallery. None: each image does both."""


class Archive(Strict):
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")]
    """Its name. `.zip`, `.tar`, `.tar.gz` and `.tgz` are unpacked, `.gz` is one compressed file, others are plain."""
    folder: bool = False
    """It is an unpacked folder of that name; sha256 is that of its kept files as sha256sum lists them."""
    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+/[A-Za-z0-9_./\-]+$")] | None = None
    """Its path in an installed Python package, from the package's name on."""
    urls: tuple[str, ...] = ()
    """Mirrors, tried in this order. Empty: to be fetched by hand."""
    size_bytes: PositiveInt | None = None
    """None: not published."""
    md5: Annotated[Digest, Field(min_length=32, max_length=32)] | None = None
    sha256: Annotated[Digest, Field(min_length=64, max_length=64)] | None = None
    note: str | None = None
    """Where to get it by hand, or why it has no checksum."""
    unpacked_bytes: PositiveInt
    """Most bytes that it may unpack to, headers included: an archive with more is refused as a zip bomb."""
    members: PositiveInt
    """Most files and folders that it may hold."""
    inner: str | None = None
    """Pattern of the one tar within a zip that holds the data set (`*.tar.gz`); the bounds and `keep` apply to it."""
    keep: tuple[str, ...] = ("*",)
    """Patterns of the members to keep: images and lists. Each must match a member."""

    @model_validator(mode="after")
    def _checked(self) -> Archive:
        if self.md5 is None and self.sha256 is None:
            if self.urls:
                raise ValueError(f"{self.file}: a downloaded archive must have a checksum, got none")
            if self.note is None:
                raise ValueError(f"{self.file}: without a checksum, `note` must say why")
        if self.inner is not None and not self.file.endswith(".zip"):
            raise ValueError(f"{self.file}: `inner` works for .zip files only, got {self.inner!r}")
        return self


class Source(Strict):
    description: str
    licence: str
    origin: str
    """Who published it, and where."""
    licence_read: str
    """The file of the data set or its package in which the licence was read; `not read`: general knowledge."""
    archives: tuple[Archive, ...]
    alternatives: tuple[tuple[Archive, ...], ...] = ()
    """Other sets of archives that hold the same images."""
    expected: dict[Part, Counts]
    """Of the halves of the published split, or of `all`."""

    @property
    def forms(self) -> tuple[tuple[Archive, ...], ...]:
        """All sets of archives, each of which is the whole data set."""
        return (self.archives, *self.alternatives)


def read_source(path: Path) -> Source:
    """Read and validate a `source.json`.

    Raises:
        DataError: no such file, or not JSON.
        ConfigError: the content breaks the schema.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique_keys)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: must be the JSON description of a data set, got {error!r}") from None
    return parse(Source, values, str(path))
