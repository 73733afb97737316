"""Image files in memory as a prepared data set would store them: for `dmlcore embed` and models that left the study.

Shapes: N images of H x W pixels, C channels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.data.images import Images, RawImages
from dmlcore.data.jpeg import JpegImages
from dmlcore.datasets.acquire.folders import read_bounded
from dmlcore.datasets.prepare.catalogue import Catalogue, Item
from dmlcore.datasets.prepare.encoding import encoder
from dmlcore.datasets.prepare.image_decoding import pillow_for_threads
from dmlcore.datasets.prepare.journal import EncodedImage
from dmlcore.datasets.prepare.limits import UnreadableImageError


def encode(files: Sequence[Path | bytes], preprocess: PreprocessConfig, channels: int) -> list[EncodedImage]:
    """Encode each file as the stage `preprocess` would store it; a broken file gives its error instead.

    Args:
        files: paths, or the bytes of files.
        preprocess: how the images are decoded and resized.
        channels: C; 1 turns photographs grey.
    """
    names = [f"image {row}" if isinstance(file, bytes) else str(file) for row, file in enumerate(files)]
    items = [Item("", "", name, str(row)) for row, name in enumerate(names)]

    def read(item: Item) -> bytes:
        file = files[int(item.split_text)]
        try:
            return file if isinstance(file, bytes) else read_bounded(file)
        except (OSError, DataError) as error:  # One file is no reason to lose the embeddings of all others.
            raise UnreadableImageError(str(error)) from None

    with pillow_for_threads():
        return list(map(encoder(Catalogue(tuple(items), read, channels, "", ""), preprocess), items))


def in_memory(encoded: Sequence[EncodedImage], preprocess: PreprocessConfig, channels: int) -> Images:
    """Wrap encoded images as a prepared data set would return them from disk."""
    data = np.frombuffer(b"".join(image.data for image in encoded), dtype=np.uint8)
    if preprocess.encoding == "raw":
        size = preprocess.image_size
        return RawImages(data.reshape(len(encoded), size, size, channels))
    lengths = np.array([len(image.data) for image in encoded], dtype=np.int64)
    return JpegImages(data, np.cumsum(lengths) - lengths, lengths)


def file_of(image: Path | str | bytes | Image.Image) -> Path | bytes:
    """Return a path or the bytes of a file; of a picture of Pillow a PNG file."""
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        return buffer.getvalue()
    return image if isinstance(image, bytes) else Path(image)
