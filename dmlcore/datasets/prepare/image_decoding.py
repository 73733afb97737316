"""One untrusted image file -> upright RGB: its centre square, or the full image with its short side resized."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import ExifTags, Image

from dmlcore.config.data import PreprocessConfig
from dmlcore.datasets.prepare import bit_depth
from dmlcore.datasets.prepare.jpeg_files import is_jpeg, with_end_marker
from dmlcore.datasets.prepare.limits import (
    UnreadableImageError,
    check_file,
    check_size,
    refused_by_pillow,
)
from dmlcore.datasets.prepare.plugins import kind_of, require

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that Pillow decodes by itself: EPS, for one, would start another program. HEIC and AVIF: see `plugins`."""

MAX_ASPECT = 4
"""Long side of a stored image, in short sides; a longer image is cropped at both ends."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By the orientation that EXIF gives: what turns the picture upright."""

NO_END = "its end marker is missing; the picture is complete"


@dataclass(frozen=True)
class Decoded:
    """An image file as a picture."""

    picture: Image.Image
    """Upright, RGB, of the size in the file."""
    note: str
    """What was done to it that its owner should know; mostly empty."""


@contextmanager
def pillow_for_threads() -> Iterator[None]:
    """Load all formats of Pillow and silence its warnings, so that several threads may decode.

    The warnings are of images that `decode` refuses by itself, or of damaged EXIF, which leaves the picture intact.
    Warning filters are global to the process: enter this block around the threads, not within them.
    """
    Image.init()
    with warnings.catch_warnings():
        for category in (Image.DecompressionBombWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        yield


def decode(data: bytes, config: PreprocessConfig, *, name: str) -> Decoded:
    """Decode, turn upright by EXIF, and convert to RGB.

    Transparency becomes white; an animation gives its first frame; more bits a channel become 8 by `bit_depth`.

    Args:
        data: the encoded file.
        config: its settings of decoding.
        name: of the file, for errors.

    Raises:
        UnreadableImageError: an unknown format, damaged, or one that costs too much (`limits`).
        DataError: HEIC or AVIF, and the plug-in for it is not installed.
    """
    if kind := kind_of(data):
        require(kind, name=name)
    try:
        check_file(data, config, name=name)
        return _decode(data, config, name)
    except UnreadableImageError:
        raise
    except Exception as error:  # Decoders raise every kind of error on damaged input.
        if is_jpeg(data) and (found := _decode_without_end(data, config, name)):
            return found
        if costly := refused_by_pillow(error, config, name=name):
            raise costly from None
        raise UnreadableImageError(
            f"{name!r}: unreadable image: {error!r}; replace or remove the file"
        ) from error


def center_square(image: Image.Image, size: int) -> Image.Image:
    """Return the centre square, resized to `size`.

    The same picture as "resize the short side, crop the centre", but a long thin image cannot fill the memory on the
    way.
    """
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def resize_short_side(image: Image.Image, size: int) -> Image.Image:
    """Return the image, cropped to 4:1 where it is longer, with a short side of `size` pixels.

    Training crops of one size need images of one scale, so small ones are enlarged.
    """
    short = min(image.size)
    width, height = (min(side, MAX_ASPECT * short) for side in image.size)
    left, top = (image.width - width) / 2, (image.height - height) / 2
    target = (round(width * size / short), round(height * size / short))
    return image.resize(target, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))


def _decode(data: bytes, config: PreprocessConfig, name: str) -> Decoded:
    with _opened(data) as image:
        check_size(image.size, config, name=name)
        deep = bit_depth.is_deep_colour(image)
        image.load()  # Before the orientation is read: Pillow turns a TIFF while it loads it.
        upright, note = _turned(image), ""
        if deep:
            upright, note = bit_depth.colour(upright, config.bit_depth, _low_bytes(data))
        elif bit_depth.is_deep_grey(image):  # Pillow would clip 16-bit grey to 255 instead of scaling it.
            upright, note = bit_depth.grey(upright, config.bit_depth, stated=image.format == "PPM")
        return Decoded(_rgb(upright), note)


def _decode_without_end(data: bytes, config: PreprocessConfig, name: str) -> Decoded | None:
    """Decode a JPEG file that lacks no more than its end marker; None: it lacks more, or the setting refuses it."""
    try:
        whole = with_end_marker(data) if config.accept_missing_end else None
        return Decoded(_decode(whole, config, name).picture, NO_END) if whole else None
    except Exception:  # As above; what is reported is the error of the file as it is.
        return None


def _opened(data: bytes) -> Image.Image:
    kind = kind_of(data)
    return Image.open(io.BytesIO(data), formats=(kind,) if kind else FORMATS)


def _low_bytes(data: bytes) -> Image.Image | None:
    with _opened(data) as image:
        if not bit_depth.select_low_bytes(image):
            return None
        image.load()
        return _turned(image)


def _turned(image: Image.Image) -> Image.Image:
    # Not `ImageOps.exif_transpose`: it writes all other tags anew, and fails where one of them is odd.
    turn = TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except (
        Exception
    ):  # Damaged EXIF says nothing, and leaves the picture intact; parsers raise every kind of error.
        return 1
    return value if isinstance(value, int) else 1


def _rgb(image: Image.Image) -> Image.Image:
    # convert("RGB") alone would show the arbitrary colours below transparent pixels.
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image if image.mode == "RGB" else image.convert("RGB")
