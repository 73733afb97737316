"""Backbones of timm and torchvision, by name, behind one face: images in, a feature map or tokens out.

Shapes: B batch, I input channels, H x W image, F features, h x w feature map, N tokens (class token first).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dmlcore.models.weights import load_weights, local_file


class Backbone(nn.Module):
    """A network without its classifier.

    `forward(images [B, I, H, W])` gives `[B, F, h, w]` for convolutional networks and `[B, N, F]` for transformers.
    """

    def __init__(self, body: nn.Module, num_features: int, *, channels_last: bool = False) -> None:
        super().__init__()
        self.body = body
        self.num_features = num_features
        self.channels_last = channels_last

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        return features.permute(0, 3, 1, 2) if self.channels_last else features


class _TimmBody(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.forward_features(images)  # type: ignore[operator]


class _TransformerBody(nn.Module):
    """torchvision's VisionTransformer up to its last tokens (its own forward keeps the class token alone)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.model._process_input(images)
        class_token = self.model.class_token.expand(tokens.shape[0], -1, -1)
        return self.model.encoder(torch.cat([class_token, tokens], dim=1))


def build_backbone(
    library: str,
    name: str,
    *,
    arguments: Mapping[str, Any] | None = None,
    weights: str | None = None,
    in_channels: int = 3,
) -> Backbone:
    """Build a backbone by the name that `library` knows it by.

    Args:
        library: `timm` or `torchvision`.
        name: model name, e.g. `resnet50`, `vit_base_patch16_224`.
        arguments: handed to the library's constructor.
        weights: None for random weights drawn from torch's global generator; `default` or a name for the library's
            pretrained weights; a path that ends in .safetensors, .pth or .pt for a local state dict; `package:NAME`
            for the one that a Python package ships.
        in_channels: I.

    Raises:
        ValueError: unknown library, name or argument, or weights that do not fit.
    """
    builders = {"timm": _build_timm, "torchvision": _build_torchvision}
    if library not in builders:
        raise ValueError(f"`library` must be one of {sorted(builders)}, got {library!r}")
    file = local_file(weights)
    try:
        backbone = builders[library](name, dict(arguments or {}), None if file else weights, in_channels)
    except TypeError as error:
        raise ValueError(
            f"`arguments` of {library} model {name!r} must be ones that it takes: {error}"
        ) from error
    if file:
        load_weights(backbone.body, str(weights))
    return backbone


def _build_timm(name: str, arguments: dict[str, Any], weights: str | None, in_channels: int) -> Backbone:
    import timm

    if not timm.is_model(name):
        close = timm.list_models(f"*{name.split('_')[0]}*")[:8]
        raise ValueError(f"`backbone.name` must be a timm model, got {name!r}; near: {close}")
    full_name = name if weights in (None, "default") else f"{name}.{weights}"
    model: Any = timm.create_model(
        full_name,
        pretrained=weights is not None,
        num_classes=0,
        global_pool="",
        in_chans=in_channels,
        **arguments,
    )
    channels_last = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")
    return Backbone(_TimmBody(model), int(model.num_features), channels_last=channels_last)


def _build_torchvision(
    name: str, arguments: dict[str, Any], weights: str | None, in_channels: int
) -> Backbone:
    import torchvision

    if in_channels != 3:
        raise ValueError(
            f"torchvision's models take 3 input channels, the data has {in_channels}; use the timm model of that name"
        )
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise ValueError(f"`backbone.name` must be a torchvision classification model, got {name!r}")
    chosen = {None: None, "default": "DEFAULT"}.get(weights, weights)
    return _strip_classifier(name, torchvision.models.get_model(name, weights=chosen, **arguments))


def _strip_classifier(name: str, model: Any) -> Backbone:
    if hasattr(model, "layer4"):
        body = nn.Sequential(
            *[child for key, child in model.named_children() if key not in ("avgpool", "fc")]
        )
        return Backbone(body, int(model.fc.in_features))
    if hasattr(model, "encoder") and hasattr(model, "class_token"):
        num_features = int(model.hidden_dim)
        model.heads = nn.Identity()
        return Backbone(_TransformerBody(model), num_features)
    if hasattr(model, "features") and not hasattr(model, "permute"):
        last = [module for module in model.features.modules() if isinstance(module, nn.Conv2d)][-1]
        return Backbone(model.features, int(last.out_channels))
    raise ValueError(
        f"torchvision model {name!r} is of a family that is not supported; use the timm model of that name"
    )
