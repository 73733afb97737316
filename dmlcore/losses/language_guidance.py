"""Language guidance: image similarities that follow those of the class names."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dmlcore.losses.base import MetricLoss, check_number, full_precision, normalize
from dmlcore.losses.softmax import class_indices


class LanguageGuidance(MetricLoss):
    """Kullback-Leibler divergence of each image's similarities from those of its class names.

    L = omega mean_i KL(softmax(S^img_i) || softmax(S^lang_i)), S^img the cosines within the batch, S^lang those of the
    text embeddings of its classes, entries within a class (the diagonal too) set to 1 + gamma in both.
    The gradient goes through the image side alone.

    Args:
        num_classes: C.
        text_embeddings: [C, T], row c that of "a photo of a {class c}".
        gamma: at least 0.
        omega: weight, at least 0 (7.5 to 10 on CUB, 5.5 to 6 on Cars, 0.1 to 1 on Stanford Online Products).

    Raises:
        ValueError: a parameter is out of its range, the rows of `text_embeddings` are not C, or a label has no row.

    Reference: Roth, Vinyals, Akata, "Integrating Language Guidance into Vision-based Deep Metric Learning", CVPR 2022,
    eq. 3 to 5.

    Edge case: a batch of one class -> 0 with zero gradient.
    """

    text_embeddings: Tensor

    takes_host_labels = True

    def __init__(
        self, num_classes: int, text_embeddings: Tensor, gamma: float = 1.0, omega: float = 7.5
    ) -> None:
        super().__init__()
        self.gamma = check_number("language_guidance.gamma", gamma, low=0)
        self.omega = check_number("language_guidance.omega", omega, low=0)
        texts = full_precision(torch.as_tensor(text_embeddings))
        if texts.dim() != 2 or len(texts) != num_classes or not texts.isfinite().all():
            raise ValueError(
                f"`language_guidance.text_embeddings` must be finite, [C, T] with C = num_classes = {num_classes}, "
                f"got {list(texts.shape)}; pass one row a training class, in the order of the labels"
            )
        # Not in the state dict: it belongs to the data set, and the constructor gets it anyway.
        self.register_buffer("text_embeddings", normalize(texts), persistent=False)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        labels = class_indices(labels, len(self.text_embeddings), embeddings.device)
        images = normalize(embeddings)
        texts = self.text_embeddings[labels].to(images.dtype)
        return self.omega * language_guidance(images @ images.T, texts @ texts.T, labels, self.gamma)


def language_guidance(
    image_similarities: Tensor, text_similarities: Tensor, labels: Tensor, gamma: float
) -> Tensor:
    """Compute the mean row-wise divergence of two [B, B] similarity matrices, given labels [B]."""
    same = labels.unsqueeze(1) == labels
    images = functional.log_softmax(image_similarities.masked_fill(same, 1 + gamma), dim=1)
    texts = functional.log_softmax(text_similarities.masked_fill(same, 1 + gamma), dim=1)
    return (images.exp() * (images - texts)).sum(dim=1).mean()
