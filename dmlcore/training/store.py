"""The files of training: a trial's checkpoints and embeddings as safetensors, and arrays that trials share.

Every file is written atomically: a reader finds the old content, the new, or no file. And every file is checked against
its sha256 when it is read: safetensors itself finds a cut file, but not a flipped bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from filelock import FileLock
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dmlcore.core.hashing import file_sha256, json_sha256
from dmlcore.core.io import atomic_write_path, write_atomically

CONTENT = "content_sha256"


class DamagedFileError(ValueError):
    """A stored file is missing, or is not the one whose sha256 its record or checkpoint holds."""


class TrialStore:
    """A folder `storage/KEY` with `best`, `validation` and `test`, while it trains also `last`, each .safetensors.

    Args:
        folder: of the trial.
        digests: name -> sha256 of the files that may be loaded, from a record; `save` adds those that it writes.
    """

    def __init__(self, folder: Path, digests: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.digests = dict(digests or {})

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write `tensors` under `name`."""
        content = safetensors.torch.save(_on_cpu(tensors))
        write_atomically(self.path(name), content)
        self.digests[name] = hashlib.sha256(content).hexdigest()

    def load(self, name: str) -> dict[str, Tensor]:
        """Read back what `save` wrote.

        Raises:
            DamagedFileError: it is not the file of the sha256 in `digests`, or there is none.
        """
        path = self.path(name)
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != self.digests.get(name):
            raise DamagedFileError(
                f"{path} is missing, or was changed since it was written: it does not have the sha256 that its record "
                "holds; remove the record and run the trial again"
            )
        return safetensors.torch.load(content)

    def save_state(self, name: str, tensors: Mapping[str, Tensor], facts: str) -> None:
        """Write a state to resume from: tensors and a text, with a checksum of both inside."""
        kept = _on_cpu(tensors)
        with atomic_write_path(self.path(name)) as temporary:
            save_file(kept, temporary, metadata={"facts": facts, CONTENT: _content(kept, facts)})

    def load_state(self, name: str) -> tuple[dict[str, Tensor], str] | None:
        """Read back what `save_state` wrote; None where there is no such file or it is damaged.

        A damaged file is renamed to `NAME.safetensors.corrupt`.
        """
        path = self.path(name)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError):
            metadata, tensors = {}, {}
        facts = metadata.get("facts", "")
        if metadata.get(CONTENT) != _content(tensors, facts):
            path.replace(path.with_name(path.name + ".corrupt"))
            return None
        return tensors, facts

    def digest(self, name: str) -> str:
        """Return the sha256 of a stored file."""
        return file_sha256(self.path(name))

    def discard(self, name: str) -> None:
        """Remove a file that is not needed any more."""
        self.path(name).unlink(missing_ok=True)

    def matches(self, digests: Mapping[str, str]) -> bool:
        """Tell whether there are named files, and each exists with that sha256."""
        return bool(digests) and all(
            self.path(name).is_file() and self.digest(name) == digest for name, digest in digests.items()
        )


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}


def _content(tensors: Mapping[str, Tensor], facts: str) -> str:
    content = hashlib.sha256(facts.encode())
    for key in sorted(tensors):
        content.update(key.encode())
        content.update(tensors[key].reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()


def state_copy(module: torch.nn.Module) -> dict[str, Tensor]:
    """Copy a module's state to the CPU."""
    return {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}


def cached_array(folder: Path, inputs: Any, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Return an array from the cache, computed and stored where it is missing.

    Args:
        folder: of the cache.
        inputs: all that the array depends on, as JSON values; the first 24 hex digits of their sha256 name the file.
        compute: makes the array.

    Returns:
        The array as a read-only memory map, so that the processes of a machine share its pages.
    """
    file = folder / f"{json_sha256(inputs)[:24]}.npy"
    if not _is_whole(file):
        folder.mkdir(parents=True, exist_ok=True)
        # Trials start together and need the same array: one computes, the others wait, look again, and read.
        with FileLock(file.with_suffix(".lock")):
            if not _is_whole(file):
                with atomic_write_path(file) as temporary, temporary.open("wb") as stream:
                    np.save(stream, compute(), allow_pickle=False)
                # After the array: a kill in between leaves one without a checksum, which is computed again.
                write_atomically(_checksum_file(file), file_sha256(file))
    array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    return array


def _is_whole(file: Path) -> bool:
    """Tell whether an array of the cache has the sha256 that was written with it."""
    try:
        return file_sha256(file) == _checksum_file(file).read_text(encoding="ascii")
    except (OSError, ValueError):
        return False


def _checksum_file(file: Path) -> Path:
    return file.with_suffix(".sha256")
