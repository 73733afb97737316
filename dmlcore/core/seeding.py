"""Random streams keyed by (seed, purpose, number), so that no two uses share one and none depends on order."""

from __future__ import annotations

import hashlib
import json

import numpy as np


def keyed_generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """Return an independent random stream for each (seed, purpose, numbers).

    The whole key is hashed: `seed * epoch` would hand epoch 2 of seed 3 the stream of epoch 3 of seed 2.

    Args:
        seed: of the trial or the split.
        purpose: what is drawn, e.g. `augmentation`.
        numbers: epoch, batch, ...: what else distinguishes this stream.

    Returns:
        A Philox generator, the same on every machine.
    """
    text = json.dumps([int(seed), purpose, *map(int, numbers)])
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))


def derived_seed(seed: int, purpose: str, *numbers: int) -> int:
    """Return a 63-bit seed for one purpose, e.g. `derived_seed(0, "augmentation", epoch)`."""
    text = "/".join([str(seed), purpose, *map(str, numbers)])
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes signed 64 bits.
