"""Text embeddings of the training classes, for the regularisers that are guided by language."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmlcore.config.trial import ComponentConfig
from dmlcore.core.hashing import file_sha256
from dmlcore.data.dataset import PreparedDataset, Split
from dmlcore.data.transforms import to_float
from dmlcore.models.weights import load_weights, local_file
from dmlcore.training.input_pipeline import InputPipeline
from dmlcore.training.store import cached_array
from dmlcore.training.text_embeddings import class_text_embeddings, pseudo_label_embeddings

GUIDED = ("language_guidance",)
TEXT_PARAMS = {"text_model": "model", "template": "template"}
"""Params of a guided regulariser that choose the text model: in the config -> of class_text_embeddings."""

CLASSIFIER_PARAMS = ("classifier", "classifier_weights", "top", "descriptions")
"""Params that put other texts in the place of class names."""
BATCH = 64
Texts = Callable[[ComponentConfig], Tensor]


def texts_of(data: PreparedDataset, split_name: str, cache: Path) -> Texts:
    """Return the function that gives a component the text embeddings [C, T] of the classes of a split.

    They are those of the class names; with `descriptions: true` among the params those of the data set's texts about
    its classes; with `classifier` those of what that classifier sees. Computed once, kept in the folder `cache`.
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


def dummy_text_embeddings(num_classes: int) -> Texts:
    """Give each class a direction of its own: to check a config without a text model."""
    return lambda component: torch.eye(num_classes)


def loss_params(component: ComponentConfig, texts: Texts) -> dict[str, Any]:
    """Return the params of a component that its loss takes, text embeddings included where it is guided."""
    if component.name not in GUIDED:
        return dict(component.params)
    chosen_by = {*TEXT_PARAMS, *CLASSIFIER_PARAMS}
    own = {key: value for key, value in component.params.items() if key not in chosen_by}
    return own | {"text_embeddings": texts(component)}


def imagenet_names() -> list[str]:
    """List the first synonym of each ImageNet-1k class, in the order of a classifier's outputs."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [info.index_to_description(index).split(",")[0] for index in range(info.num_classes())]


def class_probabilities(
    split: Split, classifier: str, *, identity: str, cache: Path, weights: str | None = None
) -> Tensor:
    """Compute the softmax of a timm classifier on every image of `split`, or read it from the cache.

    Args:
        split: N images, grey or RGB; resized to what the classifier was trained on.
        classifier: a timm name with its weights' tag, e.g. `resnet50.a1_in1k`.
        identity: of the images, e.g. the data hash and the split's name.
        cache: folder of the cached arrays.
        weights: path of a local state dict in place of the library's weights.

    Returns:
        [N, K] float32.

    Raises:
        ValueError: unknown classifier, one that is not of ImageNet's 1,000 classes, or weights that do not fit.
    """
    file = local_file(weights)
    inputs = [identity, classifier, file_sha256(file) if file else None]
    found = cached_array(cache, inputs, lambda: _softmax(_classifier(classifier, weights), split).numpy())
    return torch.from_numpy(np.array(found))


def _classifier(name: str, weights: str | None) -> torch.nn.Module:
    import timm

    if not timm.is_model(name):
        raise ValueError(f"`classifier` must be a timm model, got {name!r}; e.g. resnet50.a1_in1k")
    model = timm.create_model(name, pretrained=weights is None)
    if model.num_classes != len(imagenet_names()):
        raise ValueError(f"`classifier` must have ImageNet's 1000 classes, {name!r} has {model.num_classes}")
    if weights is not None:
        load_weights(model, weights)
    return model.eval()


def _softmax(model: torch.nn.Module, split: Split) -> Tensor:
    settings: dict = model.pretrained_cfg  # type: ignore[assignment]
    side = settings["input_size"][1]
    parts = []
    for pixels in InputPipeline(split.images, size=side, random_crop=None).evaluation_batches(BATCH):
        images = to_float(pixels, mean=0.0, std=1.0).expand(-1, 3, -1, -1)
        mean, std = (torch.tensor(settings[key]).reshape(3, 1, 1) for key in ("mean", "std"))
        with torch.inference_mode():
            parts.append(model((images - mean) / std).softmax(dim=1))
    return torch.cat(parts)
