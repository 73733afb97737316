"""A small data set of random images, to break in tests."""

from __future__ import annotations

import numpy as np

from dmlcore.datasets.prepare.catalogue import Catalogue, Item


def noise_catalogue(images_per_class: dict[str, int], size: int = 8) -> Catalogue:
    """Classes of that many random images each, two classes to a super-class."""
    names = sorted(images_per_class)
    items = [
        Item(name, f"super {place // 2}", f"{name}/{image}.png", split_text=name)
        for place, name in enumerate(names)
        for image in range(images_per_class[name])
    ]
    values = np.random.default_rng(0).integers(0, 256, (len(items), size, size, 3), np.uint8)
    pixels = dict(zip(items, values, strict=True))
    return Catalogue(tuple(items), pixels.__getitem__, 3, "noise", "none")
