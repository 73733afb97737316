"""Text embeddings of the training classes, for the regularisers that are guided by language."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmlcore.config import ComponentConfig
from dmlcore.data.packed import PreparedDataset
from dmlcore.data.text import class_text_embeddings, pseudo_label_embeddings
from dmlcore.training.pseudo_labels import class_probabilities, imagenet_names

GUIDED = ("language_guidance",)
TEXT_PARAMS = {"text_model": "model", "template": "template"}
"""Params of a guided regulariser that choose the text model: in the config -> of class_text_embeddings."""
CLASSIFIER_PARAMS = ("classifier", "classifier_weights", "top", "descriptions")
"""Params that put an ImageNet classifier's words in the place of class names."""

Texts = Callable[[ComponentConfig], Tensor]


def texts_of(data: PreparedDataset, split_name: str, cache: Path) -> Texts:
    """Text embeddings [C, T] of the classes of a split for a component, computed once and kept in the folder `cache`.

    Those of the class names; with `descriptions: true` among the params those of the texts that the data set has of its
    classes; with `classifier` those of what that classifier sees.
    """
    split = data.split(split_name)

    def texts(component: ComponentConfig) -> Tensor:
        params = component.params
        chosen = {TEXT_PARAMS[key]: value for key, value in params.items() if key in TEXT_PARAMS}
        if params.get("descriptions"):
            known = data.class_texts()
            return class_text_embeddings(
                [known[name] for name in split.class_names], cache=cache, **(chosen | {"template": "{}"})
            )
        if "classifier" not in params:
            return class_text_embeddings(split.class_names, cache=cache, **chosen)
        words = class_text_embeddings(imagenet_names(), cache=cache, **chosen)
        seen = class_probabilities(
            split,
            params["classifier"],
            identity=f"{data.data_hash}/{split_name}",
            cache=cache,
            weights=params.get("classifier_weights"),
        )
        return pseudo_label_embeddings(seen, torch.as_tensor(split.labels), words, top=params.get("top", 5))

    return texts


def stand_in_texts(num_classes: int) -> Texts:
    """One direction a class: to check a config without a text model."""
    return lambda component: torch.eye(num_classes)


def loss_params(component: ComponentConfig, texts: Texts) -> dict[str, Any]:
    """The params of a component that its loss takes, text embeddings included where it is guided."""
    if component.name not in GUIDED:
        return dict(component.params)
    own = {
        key: value
        for key, value in component.params.items()
        if key not in TEXT_PARAMS and key not in CLASSIFIER_PARAMS
    }
    return own | {"text_embeddings": texts(component)}
