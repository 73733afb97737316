"""Sizes of networks and losses: their bytes, their features, their operations; counted once, since that needs torch.

Configs come as JSON: a sweep of thousands of trials has a handful of models and losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from dmlcore.config.trial import ModelConfig, TrialConfig
from dmlcore.sweep.plan_cache import PLAN_CACHE

if TYPE_CHECKING:
    from torch import Tensor

HEADER_BYTES = 100
"""Name, type and offset of a tensor in the header of its file, about."""
CONVOLUTIONS = "convolution"


class NetworkError(ValueError):
    """A network does not take images of the size that its trial gives it."""


@cache
def model_bytes(model: str, channels: int) -> tuple[int, int]:
    """Return the bytes of a model's state and of its parameters.

    Args:
        model: a ModelConfig.
        channels: of its images.
    """

    def compute() -> list[int]:
        from torch import nn

        config, built = ModelConfig.model_validate_json(model), _built(model, channels)
        if config.trunk == "frozen":  # checkpoints leave the frozen trunk out
            trained = ("normalization", "projection")
            built = nn.ModuleDict({name: part for name, part in built.named_children() if name in trained})
        return [_bytes(built.state_dict().values()), _bytes(built.parameters())]

    state, parameters = _integers("model bytes", model, channels, compute=compute)
    return state, parameters


@cache
def objective_bytes(trial: str, classes: int) -> int:
    """Return the bytes of the losses' own state.

    Args:
        trial: a TrialConfig.
        classes: of the training images.
    """

    def compute() -> list[int]:
        from dmlcore.training.build import build_objective

        objective = build_objective(TrialConfig.model_validate_json(trial), num_classes=classes)
        return [_bytes(objective.state_dict().values())]

    return _integers("objective bytes", trial, classes, compute=compute)[0]


@cache
def feature_width(model: str, channels: int) -> int:
    """Return the number of features that a backbone gives the head."""
    return _integers(
        "feature width", model, channels, compute=lambda: [_built(model, channels).backbone.num_features]
    )[0]


@cache
def operations_of(model: str, channels: int, size: int) -> tuple[int, bool]:
    """Return the floating-point operations of a forward pass of one image, and whether most are convolutions.

    Args:
        model: a ModelConfig.
        channels: of the image.
        size: its side in pixels.

    Raises:
        NetworkError: the network does not take such an image.
    """

    def compute() -> list[int] | str:
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        built = _built(model, channels).eval()
        try:
            with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
                built(torch.empty(1, channels, size, size))
        except Exception as error:  # whatever a network raises
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            name = ModelConfig.model_validate_json(model).backbone.name
            return f"{name} does not take images of {size} pixels: {reason}"
        counts = counter.get_flop_counts()["Global"]
        convolved = sum(count for kind, count in counts.items() if CONVOLUTIONS in str(kind))
        return [max(counter.get_total_flops(), 1), int(2 * convolved > counter.get_total_flops())]

    found = PLAN_CACHE.answer("operations", model, channels, size, compute=compute)
    if isinstance(found, str):
        raise NetworkError(found)
    operations, convolutional = found
    return int(operations), bool(convolutional)


def _integers(*question: str | int, compute: Callable[[], list[int]]) -> list[int]:
    return [int(number) for number in PLAN_CACHE.answer(*question, compute=compute)]


def _built(model: str, channels: int) -> Any:
    from dmlcore.sweep.trial_checks import meta_model

    return meta_model(ModelConfig.model_validate_json(model), in_channels=channels)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() + HEADER_BYTES for tensor in tensors)
