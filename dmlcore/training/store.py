"""The files of a trial: checkpoint and embeddings as safetensors, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


class TrialStore:
    """A folder `storage/KEY` with `best.safetensors`, `validation.safetensors` and `test.safetensors`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> str:
        """Write `tensors` under `name`; gives the sha256 of the file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(name)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, temporary)
            digest = _sha256(temporary)
            _flush(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return digest

    def load(self, name: str) -> dict[str, Tensor]:
        """Read back what `save` wrote."""
        return load_file(self.path(name))

    def matches(self, digests: Mapping[str, str]) -> bool:
        """Whether every named file is there with that sha256."""
        return all(
            self.path(name).is_file() and _sha256(self.path(name)) == digest
            for name, digest in digests.items()
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def state_copy(module: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of a module's state on the CPU."""
    return {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
