"""The files of training: a trial's checkpoints and embeddings as safetensors, and arrays that trials share.

Every file is written atomically: a reader finds the old content, the new, or no file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dmlcore.core.hashing import file_sha256, json_sha256
from dmlcore.core.io import atomic_write_path

CONTENT = "content_sha256"


class TrialStore:
    """A folder `storage/KEY` with `best`, `validation` and `test`, while it trains also `last`, each .safetensors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write `tensors` under `name`."""
        with atomic_write_path(self.path(name)) as temporary:
            save_file(_on_cpu(tensors), temporary)

    def load(self, name: str) -> dict[str, Tensor]:
        """Read back what `save` wrote."""
        return load_file(self.path(name))

    def save_state(self, name: str, tensors: Mapping[str, Tensor], facts: str) -> None:
        """Write a state to resume from: tensors and a text, with a checksum of both inside."""
        kept = _on_cpu(tensors)
        with atomic_write_path(self.path(name)) as temporary:
            save_file(kept, temporary, metadata={"facts": facts, CONTENT: _content(kept, facts)})

    def load_state(self, name: str) -> tuple[dict[str, Tensor], str] | None:
        """Read back what `save_state` wrote; None where there is no such file or it is damaged.

        A damaged file is renamed to `NAME.safetensors.corrupt`. safetensors itself finds a cut file, but not a flipped
        bit, from which a trial would resume to wrong numbers: hence the checksum.
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
        """Tell whether every named file exists with that sha256."""
        return all(
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
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        # Trials start together and need the same array: one computes, the others wait, look again, and read.
        with FileLock(file.with_suffix(".lock")):
            if not file.is_file():
                with atomic_write_path(file) as temporary, temporary.open("wb") as stream:
                    np.save(stream, compute(), allow_pickle=False)
    array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    return array
