"""One encoded image of unknown origin -> a square of upright RGB pixels."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from dmlcore.data.catalogue import Pixels
from dmlcore.data.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that Pillow decodes by itself: EPS, for one, would start another program."""


def square_rgb(data: bytes, size: int, *, name: str) -> Pixels:
    """Decode, turn upright by EXIF, convert to RGB, and resize the centred square to `size`.

    The same picture as "resize the short side, crop the centre", but a 1 x 80,000,000 image cannot blow up on the way.
    Transparent parts are laid on white; of an animation the first frame counts; 16 bits a channel become 8.

    Args:
        data: the encoded file.
        size: side of the result, pixels.
        name: of the file, for errors.

    Returns:
        [size, size, 3], uint8.

    Raises:
        DataError: no image of a known format, damaged, or above Pillow's limit of 89 million pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings(
                "ignore", category=UserWarning
            )  # Damaged EXIF: the picture is still whole.
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return _square(_rgb(ImageOps.exif_transpose(image)), size)
    except Exception as error:  # Decoders raise every kind of error on damaged input.
        raise DataError(f"{name!r}: unreadable image: {error!r}; replace or remove the file") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def _eight_bits(values: np.ndarray) -> Pixels:
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 65535:
        raise ValueError(
            f"grey values must be 16-bit integers, got {values.dtype}, {values.min()} to {values.max()}"
        )
    return (values.astype(np.uint32) >> 8).astype(np.uint8)


def _square(image: Image.Image, size: int) -> Pixels:
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
