"""Images with more than 8 bits a channel -> 8 bits, so that none turns black without a word.

Formats state the size of a number, rarely the range that is used: cameras and scanners write 12 bits into 16.
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt
from PIL import Image

from dmlcore.config.data import BitDepth
from dmlcore.data.images import Pixels

DEPTHS = (8, 12, 16)
"""Bits that `auto` tells apart. A value of 12 bits taken for one of 16 is at most 15 of 255: black."""

FULL = 16

OTHER_BYTE = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
"""Pillow keeps the high byte of a 16-bit colour. Read in the other order of bytes, the low one is what it keeps."""

Values = npt.NDArray[np.generic]


def is_deep_grey(image: Image.Image) -> bool:
    """Return whether Pillow holds the grey values as numbers of more than 8 bits."""
    return image.mode.startswith(("I", "F"))


def grey(image: Image.Image, depth: BitDepth, *, stated: bool) -> tuple[Image.Image, str]:
    """Return a grey image of more than 8 bits as one of 8, and a note unless all 16 bits are used.

    Args:
        image: as Pillow holds it.
        depth: of the settings.
        stated: the format states the range that is used, and Pillow has scaled it to 16 bits, as it does PPM.

    Raises:
        ValueError: values that `depth` does not cover.
    """
    pixels, note = _scaled(np.asarray(image), FULL if depth == "auto" and stated else depth)
    return Image.fromarray(pixels), note


def colour(image: Image.Image, depth: BitDepth, low: Image.Image | None) -> tuple[Image.Image, str]:
    """Return an image of 16 bits a colour as one of 8, and a note unless all 16 bits are used.

    Args:
        image: the high bytes, as Pillow reads them.
        depth: of the settings.
        low: the low bytes, of `low_bytes`; None: Pillow cannot read them.

    Raises:
        ValueError: values that `depth` does not cover, or the low bytes are needed and not known.
    """
    high = np.asarray(image)
    if depth == FULL or (depth == "auto" and high[..., :3].max() >> 4):
        return image, ""
    if low is None:
        raise ValueError("16 bits of grey with transparency are read as full range only; save it without")
    values = high[..., :3].astype(np.uint16) << 8 | np.asarray(low)[..., :3]
    pixels, note = _scaled(values, depth)
    return Image.fromarray(np.concatenate([pixels, high[..., 3:]], axis=2)), note


def select_low_bytes(image: Image.Image) -> bool:
    """Make an image that is open and not loaded read the low byte of each 16-bit colour; False: it cannot."""
    tiles = []
    for tile in image.tile:  # type: ignore[attr-defined]
        args = (tile.args,) if isinstance(tile.args, str) else tile.args
        mode, _, order = args[0].partition(";")
        if mode == "LA" or order not in OTHER_BYTE:
            return False
        other = f"{mode};{OTHER_BYTE[order]}"
        tiles.append(tile._replace(args=other if isinstance(tile.args, str) else (other, *args[1:])))
    image.tile = tiles  # type: ignore[attr-defined]
    return True


def is_deep_colour(image: Image.Image) -> bool:
    """Return whether an image that is open and not loaded has 16 bits a colour."""
    if image.mode not in ("RGB", "RGBA"):
        return False
    modes = [tile.args if isinstance(tile.args, str) else (tile.args or [""])[0] for tile in image.tile]  # type: ignore[attr-defined]
    return any(isinstance(mode, str) and ";16" in mode for mode in modes)


def _scaled(values: Values, depth: BitDepth) -> tuple[Pixels, str]:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError(f"values must be finite, got {low:g} to {high:g}")
    if depth == "stretch":
        span = (high - low) or 1.0
        pixels = np.rint((values.astype(np.float64) - low) * (255 / span)).astype(np.uint8)
        return pixels, f"values {low:g} to {high:g} were stretched to 0 to 255"
    most = FULL if depth == "auto" else depth
    if values.dtype.kind not in "iu" or low < 0 or high >= 2**most:
        raise ValueError(
            f"values must be whole numbers of {most} bits, got {values.dtype}, {low:g} to {high:g}; "
            "set `bit_depth` to their bits, or to `stretch`"
        )
    bits = next(bits for bits in DEPTHS if high < 2**bits) if depth == "auto" else depth
    pixels = (values.astype(np.uint32) >> (bits - 8)).astype(np.uint8)
    return pixels, "" if bits == FULL else f"16 bits a channel, of which {bits} are used: read as {bits} bits"
