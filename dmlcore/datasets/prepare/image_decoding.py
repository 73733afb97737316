"""One untrusted image file -> upright RGB: its centre square, or the full image with its short side resized."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps

from dmlcore.core.errors import DataError
from dmlcore.data.images import Pixels

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that Pillow decodes by itself: EPS, for one, would start another program."""

MAX_PIXELS = 89_478_485
"""Pillow's own limit, at which it only warns."""

MAX_ASPECT = 4
"""Long side of a stored image, in short sides; a longer image is cropped at both ends."""


class UnreadableImageError(DataError):
    """One image that cannot be decoded; `max_broken_share` says how many a data set may leave out."""


@contextmanager
def pillow_for_threads() -> Iterator[None]:
    """Load all formats of Pillow and silence its warnings, so that several threads may decode.

    The warnings are of images that `decode_center_crop` refuses by itself, or of damaged EXIF, which leaves the picture
    intact. Warning filters are global to the process: enter this block around the threads, not within them.
    """
    Image.init()
    with warnings.catch_warnings():
        for category in (Image.DecompressionBombWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        yield


def decode_center_crop(data: bytes, size: int, *, name: str) -> Pixels:
    """Decode, turn upright by EXIF, convert to RGB, and resize the centre square to `size`.

    The same picture as "resize the short side, crop the centre", but a 1 x 80,000,000 image cannot fill the memory on
    the way. Transparency becomes white; an animation gives its first frame; 16 bits a channel become 8.

    Args:
        data: the encoded file.
        size: side of the result, pixels.
        name: of the file, for errors.

    Returns:
        [size, size, 3], uint8.

    Raises:
        UnreadableImageError: an unknown format, damaged, or above Pillow's limit of 89 million pixels.
    """
    return np.asarray(_decode(data, lambda image: _center_crop(image, size), name=name))


def decode_resized(data: bytes, size: int, *, name: str) -> Image.Image:
    """Decode as `decode_center_crop` does, but keep the full image, its short side resized to `size`.

    Training crops of one size need images of one scale, so small ones are enlarged. Images above 4:1 are cropped to it.

    Returns:
        An RGB image, short side `size`, long side at most 4 `size`.

    Raises:
        UnreadableImageError: as `decode_center_crop`.
    """
    return _decode(data, lambda image: resize_short_side(image, size), name=name)


def resize_short_side(image: Image.Image, size: int) -> Image.Image:
    """Return the image, cropped to 4:1 where it is longer, with a short side of `size` pixels."""
    short = min(image.size)
    width, height = (min(side, MAX_ASPECT * short) for side in image.size)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    target = (round(width * size / short), round(height * size / short))
    return image.resize(target, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))


def _decode(data: bytes, resize: Callable[[Image.Image], Image.Image], *, name: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            # Checked on the header, before `transpose` or `resize` allocates the pixels.
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} is above {MAX_PIXELS}")
            return resize(_rgb(ImageOps.exif_transpose(image)))
    except Exception as error:  # Decoders raise every kind of error on damaged input.
        raise UnreadableImageError(
            f"{name!r}: unreadable image: {error!r}; replace or remove the file"
        ) from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # Pillow would clip 16-bit grey to 255 instead of scaling it.
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    # convert("RGB") alone would show the arbitrary colours below transparent pixels.
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


def _center_crop(image: Image.Image, size: int) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)
