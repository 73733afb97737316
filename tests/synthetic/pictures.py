"""Generated pictures: a class is a composition of stripes and petalled shapes, an image is a jittered view of it.

Shapes: H x W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from dmlcore.core.seeding import keyed_generator
from tests.synthetic.config import SyntheticConfig

GREY_EVERY = 13
"""One image in so many is a grey JPEG, as in CUB-200-2011."""


ROTATED = (1, 0)
"""Label and number of the one image that is stored lying down, with an EXIF tag that says so."""


LYING_DOWN = 6
"""EXIF orientation: shown turned by 90 degrees clockwise."""


ORIENTATION = 0x0112
ROTATION_DEGREES, SCALE, SHIFT, LIGHT, TINT, NOISE = 25.0, (0.7, 1.4), 0.35, (0.6, 1.4), (0.7, 1.3), 12.0

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """What the images of a class share."""

    colours: Floats
    """[3, 3]: two of the stripes, one of the shapes, RGB in 0..255."""
    wave: Floats
    """[2], radians over half a short side: direction and density of the stripes."""
    centres: Floats
    """[number of shapes, 2], in half short sides from the middle."""
    radius: float
    petals: int
    depth: float
    """Of the notches between petals, share of the radius."""


def class_look(seed: int, label: int) -> Look:
    """The composition of a class."""
    random = keyed_generator(seed, "imitation class", label)
    angle, density = random.uniform(0.0, np.pi), random.uniform(3.0, 12.0)
    return Look(
        colours=random.uniform(0.0, 255.0, (3, 3)),
        wave=density * np.array([np.cos(angle), np.sin(angle)]),
        centres=random.uniform(-0.5, 0.5, (int(random.integers(1, 4)), 2)),
        radius=random.uniform(0.25, 0.5),
        petals=int(random.integers(2, 9)),
        depth=random.uniform(0.1, 0.6),
    )


def encoded_pictures(config: SyntheticConfig) -> Iterator[tuple[int, int, bytes]]:
    """Label, number and JPEG file of every image, class by class."""
    for label in range(config.classes):
        for number in range(config.images_per_class):
            yield label, number, encoded_picture(config, label, number)


def encoded_picture(config: SyntheticConfig, label: int, number: int) -> bytes:
    """Image `number` of class `label` as a JPEG file: a few are grey, one lies down under an EXIF tag.

    Args:
        config: its side (of the short edge) and seed.
        label: 0..classes - 1.
        number: 0..images_per_class - 1.
    """
    image = Image.fromarray(picture(config, label, number))
    exif = Image.Exif()
    if (label, number) == ROTATED:
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif[ORIENTATION] = LYING_DOWN
    elif (label * config.images_per_class + number + 1) % GREY_EVERY == 0:
        image = image.convert("L")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, exif=exif)
    return buffer.getvalue()


def picture(config: SyntheticConfig, label: int, number: int) -> Pixels:
    """One view of a class: [H, W, 3], uint8; the short edge is `config.side`, the long one up to a third longer."""
    random = keyed_generator(config.seed, "imitation image", label, number)
    longer = int(random.integers(config.side, 4 * config.side // 3 + 1))
    height, width = (config.side, longer) if random.random() < 0.75 else (longer, config.side)
    colours = _render(class_look(config.seed, label), _view(random, height, width))
    light = random.uniform(*LIGHT) * random.uniform(*TINT, 3)
    noisy = colours * light + random.normal(0.0, NOISE, (height, width, 3))
    return np.clip(noisy, 0.0, 255.0).astype(np.uint8)


def _view(random: np.random.Generator, height: int, width: int) -> Floats:
    """Where each pixel looks, [H, W, 2] in half short sides: turned, scaled and shifted by chance."""
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    half = min(height, width) / 2
    points = np.stack([columns - (width - 1) / 2, rows - (height - 1) / 2], axis=2) / half
    angle = np.deg2rad(random.uniform(-ROTATION_DEGREES, ROTATION_DEGREES))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ turn / random.uniform(*SCALE) + random.uniform(-SHIFT, SHIFT, 2)


def _render(look: Look, points: Floats) -> Floats:
    stripes = (0.5 + 0.5 * np.sin(points @ look.wave))[:, :, None]
    ground = look.colours[0] * stripes + look.colours[1] * (1.0 - stripes)
    return np.where(_covered(look, points)[:, :, None], look.colours[2], ground)


def _covered(look: Look, points: Floats) -> npt.NDArray[np.bool_]:
    covered = np.zeros(points.shape[:2], bool)
    for centre in look.centres:
        x, y = np.moveaxis(points - centre, 2, 0)
        edge = look.radius * (1.0 - look.depth * (0.5 + 0.5 * np.cos(look.petals * np.arctan2(y, x))))
        covered |= np.hypot(x, y) < edge
    return covered
