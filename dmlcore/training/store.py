"""The files of a trial: checkpoints and embeddings as safetensors, written whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dmlcore.core.hashing import file_sha256
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
        """Write a state to go on from: tensors and a text, with a checksum of both inside."""
        kept = _on_cpu(tensors)
        with atomic_write_path(self.path(name)) as temporary:
            save_file(kept, temporary, metadata={"facts": facts, CONTENT: _content(kept, facts)})

    def load_state(self, name: str) -> tuple[dict[str, Tensor], str] | None:
        """What `save_state` wrote, or None: there is no such file, or it is damaged (then it is set aside)."""
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
        """Sha256 of a stored file."""
        return file_sha256(self.path(name))

    def discard(self, name: str) -> None:
        """Remove a file that is not needed any more."""
        self.path(name).unlink(missing_ok=True)

    def matches(self, digests: Mapping[str, str]) -> bool:
        """Whether every named file is there with that sha256."""
        return all(
            self.path(name).is_file() and file_sha256(self.path(name)) == digest
            for name, digest in digests.items()
        )


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}


def _content(tensors: Mapping[str, Tensor], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for key in sorted(tensors):
        digest.update(key.encode())
        digest.update(tensors[key].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def state_copy(module: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of a module's state on the CPU."""
    return {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
