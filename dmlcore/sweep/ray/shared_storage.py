"""Storage that all nodes of a cluster reach, for data sets, checkpoints, records and signals between them.

Layout: `data/HASH/...`, `weights/HASH.suffix`, `storage/KEY/...`, `records/KEY.json`, `stop/KEY`. Files are there for
transfer only: the study's own folder is the truth, and the driver removes what it has downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dmlcore.core.sealed_json import SealError, json_object
from dmlcore.sweep.file_store import FileStore, SharedStorageError

COMPLETE = "complete.json"
"""Written after all other files of a folder; names them with their sizes."""


@dataclass(frozen=True)
class SharedStorage(FileStore):
    """What the nodes of a cluster exchange, with folders of files."""

    def put_folder(self, files: Iterable[Path], folder: str) -> None:
        """Copy files to a folder, unless one is there that is complete and has their names and sizes."""
        files = list(files)
        listed = json.dumps({file.name: file.stat().st_size for file in files}).encode()
        if self.read(f"{folder}/{COMPLETE}") == listed:
            return
        for file in files:
            self.put(file, f"{folder}/{file.name}")
        # Last: a driver that is killed before leaves a folder that nobody uses, and its successor copies it again.
        self.write(f"{folder}/{COMPLETE}", listed)

    def get_folder(self, folder: str, target: Path, names: Iterable[str]) -> None:
        """Copy a complete folder to `target`; local files of the right size are not copied again.

        Args:
            folder: in the storage.
            target: here.
            names: of the files that the folder may hold. Their content is for the caller to verify.

        Raises:
            SharedStorageError: the folder is missing or incomplete, or its list is not one of such files.
        """
        for name, size in self._listed(folder, set(names)).items():
            file = target / name
            if file.is_file() and file.stat().st_size == size:
                continue
            if not self.get(f"{folder}/{name}", file) or file.stat().st_size != size:
                raise SharedStorageError(
                    f"{self.address}: {folder}/{name} must have {size} bytes; remove {folder} there"
                )

    def _listed(self, folder: str, names: set[str]) -> dict[str, int]:
        """Return name -> size of the files of a complete folder."""
        content = self.read(f"{folder}/{COMPLETE}")
        if content is None:
            raise SharedStorageError(
                f"{self.address}: {folder} is missing or incomplete; run the stage again"
            )
        try:
            sizes = json_object(content)
        except SealError as error:
            raise SharedStorageError(
                f"{self.address}: {folder}/{COMPLETE} {error}; remove {folder} there"
            ) from None
        for name, size in sizes.items():
            if name not in names or type(size) is not int:
                raise SharedStorageError(
                    f"{self.address}: {folder}/{COMPLETE} must give the sizes of {sorted(names)}, it has "
                    f"{name[:80]!r}; remove {folder} there"
                )
        return sizes
