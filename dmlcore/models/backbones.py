"""Backbones of timm by name: images in, a feature map or tokens out.

Shapes: B batch, I input channels, H x W image, F features, h x w feature map, N tokens (class token first).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dmlcore.extras import require
from dmlcore.models.weights import load_weights, local_file


class Backbone(nn.Module):
    """A timm network without its classifier.

    `forward(images [B, I, H, W])` gives `[B, F, h, w]` for convolutional networks and `[B, N, F]` for transformers.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.num_features = int(model.num_features)
        # Swin and its kin return [B, h, w, F]; everything after the backbone expects the features second.
        self.features_last = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.model.forward_features(images)
        return features.permute(0, 3, 1, 2) if self.features_last else features


def build_backbone(
    name: str, *, arguments: Mapping[str, Any] | None = None, weights: str | None = None, in_channels: int = 3
) -> Backbone:
    """Build a backbone by its name in timm.

    Args:
        name: model name, e.g. `resnet50`, `vit_base_patch16_224`.
        arguments: passed to timm's constructor.
        weights: None for random weights drawn from torch's global generator; `default` or a tag (`tv_in1k`) for timm's
            pretrained weights; a path that ends in .safetensors, .pth or .pt for a local state dict; `package:NAME`
            for the one that a Python package ships.
        in_channels: I.

    Raises:
        ValueError: unknown name or argument, or weights that do not fit.
    """
    require("train", f"the backbone {name!r}", "timm")
    import timm  # here: it takes a second, and commands that only read a config need none of it

    if not timm.is_model(name):
        similar = timm.list_models(f"*{name.split('_')[0]}*")[:8]
        raise ValueError(f"`backbone.name` must be a timm model, got {name!r}; similar names: {similar}")
    file = local_file(weights)
    pretrained = weights is not None and file is None
    full_name = f"{name}.{weights}" if pretrained and weights != "default" else name
    try:
        backbone = Backbone(
            timm.create_model(
                full_name,
                pretrained=pretrained,
                num_classes=0,
                global_pool="",
                in_chans=in_channels,
                **dict(arguments or {}),
            )
        )
    except TypeError as error:
        raise ValueError(
            f"`backbone.arguments` must be arguments of the timm model {name!r}, got {dict(arguments or {})}: {error}"
        ) from error
    if file:
        load_weights(backbone.model, str(weights))
    return backbone
