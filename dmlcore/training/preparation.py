"""How an image file becomes the input of a trial's network, as values that leave with the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from dmlcore.config.base import PositiveFloat, PositiveInt, Strict
from dmlcore.config.data import BitDepth, PreprocessConfig, load_datasets
from dmlcore.config.trial import TrialConfig
from dmlcore.data.dataset import PreparedDataset

Side = Annotated[int, Field(ge=8, le=1024)]
RESIZES: dict[str, Literal["centre_square", "short_side"]] = {"raw": "centre_square", "jpeg": "short_side"}
LARGEST_ASPECT: Final = 4
"""As `dmlcore.datasets.prepare.image_decoding.MAX_ASPECT`, which the stage `sweep` does not depend on."""


class Jpeg(Strict):
    """The options of Pillow with which the resized picture is encoded, before it is decoded again."""

    quality: Annotated[int, Field(ge=50, le=100)]
    subsampling: Literal["4:2:0"]
    optimize: bool
    restart_marker_blocks: PositiveInt


class Preparation(Strict):
    """The steps from a decoded, upright picture to the network's input, in their order."""

    channel_order: Literal["RGB", "L"]
    """`L`: grey, of one channel, converted after the resizing."""
    resize: Literal["centre_square", "short_side"]
    """`centre_square`: the largest square in the middle becomes `resized_size` x `resized_size`. `short_side`: the
    picture, cut to `largest_aspect` : 1 in the middle where it is longer, keeps its shape."""
    resized_size: Side
    interpolation: Literal["bicubic"] = "bicubic"
    """Of Pillow."""
    largest_aspect: Literal[4] = LARGEST_ASPECT
    jpeg: Jpeg | None
    """What the network was trained on came from JPEG files: their loss is part of its input. None: plain pixels."""
    crop: Side | None
    """Side of the centre crop of the resized picture. None: there is none."""
    crop_interpolation: Literal["bilinear"] = "bilinear"
    """Where the picture is smaller than the crop: its largest square is resized, with antialiasing."""
    rescale: Literal["1/255"] = "1/255"
    mean: Annotated[tuple[float, ...], Field(min_length=1, max_length=3)]
    """Subtracted from pixels in 0..1; one number, or one per channel."""
    std: Annotated[tuple[PositiveFloat, ...], Field(min_length=1, max_length=3)]
    bit_depth: BitDepth
    max_pixels: Annotated[int, Field(ge=1, le=178_956_970)]
    accept_missing_end: bool

    @property
    def channels(self) -> int:
        """Return the number of channels of the network's input."""
        return len(self.channel_order)

    def decoding(self) -> PreprocessConfig:
        """Return the settings with which dmlcore decodes and stores an image file so."""
        return PreprocessConfig(
            image_size=self.resized_size,
            encoding="jpeg" if self.jpeg else "raw",
            jpeg_quality=self.jpeg.quality if self.jpeg else 95,
            max_pixels=self.max_pixels,
            accept_missing_end=self.accept_missing_end,
            bit_depth=self.bit_depth,
        )


def preprocess_settings(name: str, prepared: Path) -> PreprocessConfig:
    """Return the settings by which the images of a data set were prepared.

    Args:
        name: of the data set.
        prepared: its folder, `data/prepared/NAME`.

    Raises:
        ValueError: it is not prepared, or was prepared with other settings than data/params.yaml has now.
    """
    summary = PreparedDataset.open(prepared).summary
    preprocess = load_datasets(prepared.parents[1] / "params.yaml").datasets[name].preprocess
    for key in ("image_size", "encoding"):
        was, now = summary[key], getattr(preprocess, key)
        if was != now:
            raise ValueError(
                f"{prepared} was prepared with {key} {was}, data/params.yaml has {now}; run `dvc repro`"
            )
    return preprocess


def preparation_of(config: TrialConfig, prepared: Path) -> Preparation:
    """Return how images become the input of a trial's network.

    Args:
        config: of the trial.
        prepared: the folder of its data set, `data/prepared/NAME`.

    Raises:
        ValueError: as `preprocess_settings`; or images of other than 1 or 3 channels.
    """
    settings = preprocess_settings(config.dataset, prepared)
    channels = int(PreparedDataset.open(prepared).summary["channels"])
    if channels not in (1, 3):
        raise ValueError(
            f"{prepared}: a model leaves with images of 1 or 3 channels, these have {channels}; there is no file format"
        )
    raw = settings.encoding == "raw"
    crop = config.input.size if config.input else settings.image_size if raw else None
    return Preparation(
        channel_order="L" if channels == 1 else "RGB",
        resize=RESIZES[settings.encoding],
        resized_size=settings.image_size,
        jpeg=None if raw else Jpeg(**_jpeg_options(settings.jpeg_quality)),
        crop=crop,
        mean=config.input.mean if config.input else (0.5,),
        std=config.input.std if config.input else (0.5,),
        bit_depth=settings.bit_depth,
        max_pixels=settings.max_pixels,
        accept_missing_end=settings.accept_missing_end,
    )


def _jpeg_options(quality: int) -> dict[str, Any]:
    from dmlcore.data.jpeg import JPEG_OPTIONS  # here: it imports torch and torchvision, two seconds

    return {name: value for name, value in JPEG_OPTIONS.items() if name != "format"} | {"quality": quality}
