"""A catalogue of photograph-like files, for both encodings."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from dmlcore.config.data import PreprocessConfig
from dmlcore.datasets.prepare.catalogue import Catalogue, Item
from dmlcore.datasets.prepare.image_decoding import center_square, decode

SIZES = ((40, 30), (30, 40), (24, 24), (60, 20))
"""Width and height, in turn."""


def photograph(seed: int, size: tuple[int, int]) -> Image.Image:
    """Coarse coloured patches, smooth: what JPEG keeps well."""
    patches = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode_center_crop(data: bytes, size: int, *, name: str, **settings) -> np.ndarray:
    """The centre square of an image file as preprocessing decodes it, [size, size, 3]."""
    return np.asarray(center_square(decode(data, PreprocessConfig(**settings), name=name).picture, size))


def photo_catalogue(classes: int = 16, images: int = 4) -> Catalogue:
    """Files of several shapes, each a picture of its own."""
    items = [
        Item(f"class {label:02}", "all", f"{label:02}/{image}.png", split_text=str(label))
        for label in range(classes)
        for image in range(images)
    ]
    files = {
        item: encode(photograph(number, SIZES[number % len(SIZES)])) for number, item in enumerate(items)
    }
    return Catalogue(tuple(items), files.__getitem__, 3, "patches", "none")
