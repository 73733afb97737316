"""Text embeddings of the training classes, for the regularisers that are guided by language."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmlcore.config import ComponentConfig
from dmlcore.data.text import class_text_embeddings

GUIDED = ("language_guidance",)
TEXT_PARAMS = {"text_model": "model", "template": "template"}
"""Params of a guided regulariser that choose the text model: in the config -> of class_text_embeddings."""

Texts = Callable[[ComponentConfig], Tensor]


def texts_of(class_names: Sequence[str], cache: Path) -> Texts:
    """Text embeddings [C, T] of `class_names` for a component, computed once and kept in the folder `cache`."""

    def texts(component: ComponentConfig) -> Tensor:
        chosen = {TEXT_PARAMS[key]: value for key, value in component.params.items() if key in TEXT_PARAMS}
        return class_text_embeddings(class_names, cache=cache, **chosen)

    return texts


def stand_in_texts(num_classes: int) -> Texts:
    """One direction a class: to check a config without a text model."""
    return lambda component: torch.eye(num_classes)


def loss_params(component: ComponentConfig, texts: Texts) -> dict[str, Any]:
    """The params of a component that its loss takes, text embeddings included where it is guided."""
    if component.name not in GUIDED:
        return dict(component.params)
    own = {key: value for key, value in component.params.items() if key not in TEXT_PARAMS}
    return own | {"text_embeddings": texts(component)}
