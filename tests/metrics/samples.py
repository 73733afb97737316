"""Embeddings of known law, for the tests and for the page on OPIS."""

import numpy as np
from numpy.typing import NDArray


def draw(
    sizes: list[int], spread: NDArray[np.float64] | float, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Classes around orthogonal centres, so that no class has nearer neighbours than another: same spread, same law.

    Args: sizes: images of each class; spread: of the images about their centre, [C] or one for all.
    Returns: embeddings [N, D], labels [N].
    """
    labels = np.repeat(np.arange(len(sizes)), sizes)
    width = max(64, len(sizes))
    scale = np.broadcast_to(spread, len(sizes))[labels] * np.exp(0.5 * rng.standard_normal(len(labels)))
    noise = rng.standard_normal((len(labels), width)) * (scale / np.sqrt(width))[:, None]
    return (np.eye(len(sizes), width)[labels] + noise).astype(np.float32), labels
