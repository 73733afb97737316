"""Randomness keyed by (seed, purpose, number), so that no two uses share a stream and none depends on order."""

from __future__ import annotations

import hashlib


def derived_seed(seed: int, purpose: str, *numbers: int) -> int:
    """A 63-bit seed for one purpose, e.g. `derived_seed(0, "augmentation", epoch)`."""
    text = "/".join([str(seed), purpose, *map(str, numbers)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
