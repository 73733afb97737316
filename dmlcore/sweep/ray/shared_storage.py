"""A place that all nodes of a cluster reach, through which driver and workers pass data sets, checkpoints and records.

Laid out `data/HASH/...`, `weights/HASH.suffix`, `storage/KEY/...`, `records/KEY.json`. What lies there is in passing:
the study's own folder is the truth, and what it has taken over is removed here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from dmlcore.core.io import atomic_write_path

COMPLETE = "complete.json"
"""Written after all other files of a folder; names them with their sizes."""


class ClusterError(RuntimeError):
    """The cluster cannot run the sweep."""


class SharedStorageError(ClusterError):
    """The place cannot be reached, or what lies there is not whole."""


@dataclass(frozen=True)
class SharedStorage:
    """Files at an fsspec address.

    Args:
        address: `s3://bucket/path`, `gs://bucket/path`, `file:///mounted/folder`, ...; every node needs its package
            (s3fs, gcsfs) and credentials.
    """

    address: str

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        try:
            filesystem, root = fsspec.core.url_to_fs(self.address)
        except (ImportError, ValueError) as error:
            raise SharedStorageError(
                f"sweep.cluster.storage must be an fsspec address whose package is installed, got {self.address!r}: "
                f"{error}"
            ) from error
        return filesystem, root

    def __getstate__(self) -> dict[str, Any]:
        return {"address": self.address}

    def at(self, name: str) -> str:
        """The full path of `name`, which must stay inside."""
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts:
            raise SharedStorageError(
                f"a name in {self.address} must be relative and without `..`, got {name!r}"
            )
        return f"{self._opened[1].rstrip('/')}/{name}"

    def put(self, file: Path, name: str) -> None:
        """Copy a local file to `name`, whole or not at all."""
        filesystem, path = self._opened[0], self.at(name)
        if isinstance(filesystem, LocalFileSystem):
            with atomic_write_path(Path(path)) as temporary:
                filesystem.put_file(str(file), str(temporary))
        else:  # an object store shows an object when all of it has arrived
            filesystem.put_file(str(file), path)

    def get(self, name: str, file: Path) -> bool:
        """Copy `name` to a local file, whole or not at all; False where there is none."""
        try:
            with atomic_write_path(file) as temporary:
                self._opened[0].get_file(self.at(name), str(temporary))
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None where there is none."""
        self._opened[0].invalidate_cache()
        try:
            content: bytes = self._opened[0].cat_file(self.at(name))
        except FileNotFoundError:
            return None
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""
        filesystem, path = self._opened[0], self.at(name)
        if isinstance(filesystem, LocalFileSystem):
            with atomic_write_path(Path(path)) as temporary:
                temporary.write_bytes(content)
        else:
            filesystem.pipe_file(path, content)

    def names(self, folder: str) -> list[str]:
        """Names of the files right in `folder`, none where it is absent."""
        filesystem = self._opened[0]
        filesystem.invalidate_cache()
        try:
            found = filesystem.ls(self.at(folder), detail=True)
        except FileNotFoundError:
            return []
        names = [PurePosixPath(entry["name"]).name for entry in found if entry["type"] == "file"]
        return sorted(name for name in names if not name.startswith("."))

    def remove(self, name: str) -> None:
        """Remove a file or folder, or nothing."""
        filesystem = self._opened[0]
        filesystem.invalidate_cache()
        if filesystem.exists(self.at(name)):
            filesystem.rm(self.at(name), recursive=True)

    def put_folder(self, files: Iterable[Path], folder: str) -> None:
        """Copy files to a folder that others see once it is whole; one that is whole already is left."""
        if self.read(f"{folder}/{COMPLETE}") is not None:
            return
        sizes = {}
        for file in files:
            self.put(file, f"{folder}/{file.name}")
            sizes[file.name] = file.stat().st_size
        self.write(f"{folder}/{COMPLETE}", json.dumps(sizes).encode())

    def get_folder(self, folder: str, target: Path) -> None:
        """Copy a whole folder to `target`; files that are there already in their size are left.

        Raises:
            SharedStorageError: the folder is not there, or not whole.
        """
        listed = self.read(f"{folder}/{COMPLETE}")
        if listed is None:
            raise SharedStorageError(
                f"{self.address}: {folder} must have been put there whole; run the stage again"
            )
        for name, size in json.loads(listed).items():
            file = target / PurePosixPath(name).name
            if file.is_file() and file.stat().st_size == size:
                continue
            if not self.get(f"{folder}/{file.name}", file) or file.stat().st_size != size:
                raise SharedStorageError(
                    f"{self.address}: {folder}/{name} must have {size} bytes; remove {folder} there"
                )
