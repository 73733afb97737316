"""The files of a trial: checkpoint and embeddings as safetensors, written whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dmlcore.atomic import replaced_file


class TrialStore:
    """A folder `storage/KEY` with `best.safetensors`, `validation.safetensors` and `test.safetensors`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> str:
        """Write `tensors` under `name`; gives the sha256 of the file."""
        with replaced_file(self.path(name)) as temporary:
            save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, temporary)
            return _sha256(temporary)

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


def state_copy(module: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of a module's state on the CPU."""
    return {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
