"""Files at an fsspec address, a mounted folder or an object store, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Self, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from dmlcore.core.io import atomic_write_path, write_atomically

PATIENCE_SECONDS, PAUSE_SECONDS = 600.0, 2.0
"""An object store that is out is asked again for so long, at such intervals."""
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""Answers of a store, in contrast to its silence."""
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci"}
"""Protocols of stores that show an object only when all of it has arrived."""


T = TypeVar("T")


class ClusterError(RuntimeError):
    """The cluster cannot run the sweep."""


class SharedStorageError(ClusterError):
    """The storage cannot be reached, or a file there is missing or damaged."""


class NoAnswerError(SharedStorageError):
    """The storage did not answer in time."""


@dataclass(frozen=True)
class FileStore:
    """Files at an fsspec address.

    Args:
        address: `s3://bucket/path`, `gs://bucket/path`, `file:///mounted/folder`, ...; every node needs its package
            (s3fs, gcsfs) and credentials.
        setting: where the address comes from, for messages.
        patience_seconds: how long each call waits for an object store that does not answer.
    """

    address: str
    setting: str = "sweep.cluster.storage"
    patience_seconds: float = PATIENCE_SECONDS

    @property
    def at_once(self) -> Self:
        """Return the same storage for what may as well fail: its calls do not wait."""
        return replace(self, patience_seconds=0.0)

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        try:
            filesystem, root = fsspec.core.url_to_fs(self.address)
        except (ImportError, ValueError) as error:
            raise SharedStorageError(
                f"{self.setting} must be an fsspec address whose package is installed, got {self.address!r}: {error}"
            ) from error
        return filesystem, root

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the settings alone: each process opens connections of its own."""
        return {
            "address": self.address,
            "setting": self.setting,
            "patience_seconds": self.patience_seconds,
        }

    def _ask(self, call: Callable[[Any], T]) -> T:
        """Call the file system, and again where an object store does not answer.

        Raises:
            NoAnswerError: it did not answer in time.
        """
        filesystem = self._opened[0]
        if isinstance(filesystem, LocalFileSystem):
            return call(filesystem)
        deadline = time.monotonic() + self.patience_seconds
        while True:
            try:
                return call(filesystem)
            except FINAL:
                raise
            except Exception as error:  # of botocore, aiohttp, google.auth, ...: each package has its own
                if time.monotonic() + PAUSE_SECONDS > deadline:
                    reason = str(error).strip().split("\n")[0] or type(error).__name__
                    raise NoAnswerError(f"{self.address} does not answer: {reason}") from error
            time.sleep(PAUSE_SECONDS)

    def path(self, name: str) -> str:
        """Return the full path of `name`, which must stay inside: names also come from files of other nodes."""
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts:
            raise SharedStorageError(
                f"a name in {self.address} must be relative and without `..`, got {name!r}"
            )
        full = f"{self._opened[1].rstrip('/')}/{name}"
        if isinstance(self._opened[0], LocalFileSystem):
            self._refuse_links(Path(full))
        return full

    def _refuse_links(self, path: Path) -> None:
        """Refuse a path that leads out of the storage by a link that somebody has left there."""
        root = Path(self._opened[1])
        linked = next(
            (part for part in (path, *path.parents) if part.is_relative_to(root) and part.is_symlink()), None
        )
        if linked is not None and linked != root:
            raise SharedStorageError(f"{linked} is a link; nothing is read or written through it, remove it")

    def put(self, file: Path, name: str) -> None:
        """Copy a local file to `name`, atomically."""
        self._write(name, lambda filesystem, path: filesystem.put_file(str(file), path))

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, atomically."""
        self._write(name, lambda filesystem, path: filesystem.pipe_file(path, content))

    def _write(self, name: str, transfer: Callable[[Any, str], None]) -> None:
        filesystem, path = self._opened[0], self.path(name)
        if isinstance(filesystem, LocalFileSystem):
            with atomic_write_path(Path(path)) as temporary:
                transfer(filesystem, str(temporary))
        elif self._shows_whole_objects():
            self._ask(lambda filesystem: transfer(filesystem, path))
        else:
            self._ask(lambda filesystem: self._write_and_rename(path, transfer))

    def _write_and_rename(self, path: str, transfer: Callable[[Any, str], None]) -> None:
        temporary = self._beside(path, transfer)
        with suppress(OSError):  # some refuse to rename to a name that exists
            self._opened[0].rm_file(path)
        self._opened[0].mv(temporary, path)

    def _shows_whole_objects(self) -> bool:
        return self.address.partition("://")[0] in OBJECT_STORES

    def _beside(self, path: str, transfer: Callable[[Any, str], None]) -> str:
        """Write to a new name beside `path`, which `names` does not list, and return it."""
        temporary = "/.".join(path.rsplit("/", 1)) + f".{secrets.token_hex(8)}"
        self._opened[0].makedirs(path.rpartition("/")[0], exist_ok=True)
        transfer(self._opened[0], temporary)
        return temporary

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file, atomically, unless there is one of that name; return whether this call wrote it.

        Of two calls at once exactly one writes where the store can refuse: in folders (a hard link) and in object
        stores with conditional writes (`If-None-Match` of S3). Elsewhere the later one replaces the earlier.
        """
        filesystem, path = self._opened[0], self.path(name)
        if isinstance(filesystem, LocalFileSystem):
            return _create_file(Path(path), content)
        if self.size(name) is not None:
            return False
        try:
            if self._shows_whole_objects():
                filesystem.pipe_file(path, content, mode="create")
            else:
                filesystem.mv(self._beside(path, lambda fs, there: fs.pipe_file(there, content)), path)
        except Exception:  # each store has its own way to say that somebody was faster
            if self.size(name) is None:
                raise
            return False
        return True

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes; None if it does not exist."""
        try:
            self._forget_listings()
            path = self.path(name)
            return int(self._ask(lambda filesystem: filesystem.info(path))["size"])
        except FileNotFoundError:
            return None

    def get(self, name: str, file: Path) -> bool:
        """Copy `name` to a local file, atomically; return False if it does not exist."""
        try:
            with atomic_write_path(file) as temporary:
                self._ask(lambda filesystem: filesystem.get_file(self.path(name), str(temporary)))
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None if it does not exist."""
        self._forget_listings()
        path = self.path(name)
        try:
            content: bytes = self._ask(lambda filesystem: filesystem.cat_file(path))
        except FileNotFoundError:
            return None
        return content

    def names(self, folder: str) -> list[str]:
        """List the names of the files directly in `folder`, "" for the whole; empty if it does not exist."""
        self._forget_listings()
        path = self.path(folder) if folder else self._opened[1]
        try:
            found = self._ask(lambda filesystem: filesystem.ls(path, detail=True))
        except FileNotFoundError:
            return []
        names = [PurePosixPath(entry["name"]).name for entry in found if entry["type"] == "file"]
        return sorted(name for name in names if not name.startswith("."))

    def remove(self, name: str) -> None:
        """Remove a file or folder, if it exists."""
        self._forget_listings()
        path = self.path(name)
        if self._ask(lambda filesystem: filesystem.exists(path)):
            with suppress(FileNotFoundError):  # another process removed it in between
                self._ask(lambda filesystem: filesystem.rm(path, recursive=True))

    def _forget_listings(self) -> None:
        """Drop the file system's cache of listings, which other nodes have made outdated."""
        self._opened[0].invalidate_cache()


def _create_file(path: Path, content: bytes) -> bool:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_atomically(temporary, content)
        os.link(temporary, path)  # unlike a rename, it refuses a name that exists
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True
