"""Small pictures of test images as data addresses, and the names of their classes."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmlcore.analysis.study import Study
from dmlcore.report.html.stored import Pair

if TYPE_CHECKING:
    from dmlcore.data.dataset import Split


SIDE = 64
"""Longest side of a small picture in pixels; a photograph then has about 2 kB."""


@dataclass(frozen=True)
class Pictures:
    """The images of the pair, where the prepared data set is on this machine."""

    names: dict[int, str]
    """Row of the manifest -> class name."""
    split: Split | None
    missing: str | None
    """Why there are none."""

    def name(self, row: int, label: int) -> str:
        return self.names.get(row, f"class {label}")

    def picture(self, row: int) -> str | None:
        """The image at a row of the manifest as a data address."""
        if self.split is None:
            return None
        return data_address(self.split.images.read(row - int(self.split.index[0])))


def open_pictures(study: Study, pair: Pair) -> Pictures:
    """The prepared images of the pair's data set; without them names are numbers and the page says why."""
    dataset = pair.cell.dataset
    folder = None if study.prepared is None else study.prepared / dataset
    if folder is None or not (folder / "dataset.json").is_file():
        return Pictures({}, None, "No images: the prepared data set is not on this machine.")
    return _opened(folder, pair, study.datasets[dataset])


def data_address(pixels: NDArray[np.uint8]) -> str:
    """[H, W, C] pixels as `data:image/...`, at most SIDE wide and high: grey as PNG, colour as JPEG."""
    grey = pixels.shape[2] == 1
    image = Image.fromarray(np.array(pixels[:, :, 0] if grey else pixels))
    image.thumbnail((SIDE, SIDE))
    buffer, kind = io.BytesIO(), "png" if grey else "jpeg"
    image.save(buffer, kind, **({} if grey else {"quality": 80}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _opened(folder: Path, pair: Pair, described: Any) -> Pictures:
    # here, not above: decoding JPEG files needs torch, a page without pictures does not
    from dmlcore.data.dataset import PreparedDataset

    data = PreparedDataset.open(folder)
    if data.data_hash != described.get("data_hash"):
        return Pictures(
            {}, None, "No images: the prepared data set is not the one that the trials were trained on."
        )
    rows = data.manifest[pair.index.tolist()]
    names = dict(zip(pair.index.tolist(), rows["class_name"].to_list(), strict=True))
    return Pictures(names, data.split("test"), None)
