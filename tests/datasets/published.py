"""Archives in the layout of the published data sets, with images of a few pixels."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cache
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from dmlcore.config.data import PreprocessConfig
from dmlcore.data.images import Pixels
from dmlcore.datasets.acquire.acquire import acquire
from dmlcore.datasets.prepare.catalogue import Catalogue, Item
from dmlcore.datasets.prepare.image_decoding import pillow_for_threads
from tests.datasets.photo_files import decode_center_crop

SOURCES = Path(__file__).parents[2] / "data" / "sources"
Files = Mapping[str, bytes]


@cache
def tiny_jpeg(seed: int) -> bytes:
    """One of 256 images of 6 x 5 pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return encode(Image.fromarray(pixels))


def encode(image: Image.Image, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def images(names: list[str]) -> dict[str, bytes]:
    """An image for each name."""
    return {name: tiny_jpeg(place % 256) for place, name in enumerate(names)}


def write_tar(path: Path, files: Files, *special: tarfile.TarInfo) -> None:
    """A tar, compressed if its name says so; `special` are members without bytes."""
    with (
        path.open("wb") as raw,
        _compressed(path, raw) as file,
        tarfile.open(fileobj=file, mode="w") as archive,
    ):
        for member in special:
            archive.addfile(member)
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def _compressed(path: Path, raw: IO[bytes]) -> Any:
    # Without a date: the same files give the same archive.
    return gzip.GzipFile("", "wb", 1, raw, mtime=0) if path.suffix in (".gz", ".tgz") else nullcontext(raw)


def write_zip(path: Path, files: Files) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def write_archive(path: Path, content: Files | bytes) -> None:
    """Members as a zip or tar, by the name of the archive; bytes as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".zip":
        write_zip(path, content)
    else:
        write_tar(path, content)


def write_source(path: Path, name: str, made: Path, /, **changes: Any) -> None:
    """The project's own description of data set `name`, with the sizes and checksums of the archives made here."""
    source = json.loads((SOURCES / f"{name}.json").read_text()) | changes
    for archive in [*source["archives"], *chain.from_iterable(source.get("alternatives", []))]:
        for absent in ("size_bytes", "md5", "sha256"):
            archive.pop(absent, None)
        archive |= {"urls": [], "note": "made by a test"}
        if (made / archive["file"]).is_file():
            archive |= checksums((made / archive["file"]).read_bytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(source))


def checksums(data: bytes) -> dict[str, Any]:
    return {
        "size_bytes": len(data),
        "md5": hashlib.md5(data).hexdigest(),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def pixels(catalogue: Catalogue, item: Item) -> Pixels:
    """The centred square of an image, 8 x 8, as preprocessing decodes it."""
    data = catalogue.read(item)
    assert isinstance(data, bytes)
    with pillow_for_threads():
        return decode_center_crop(data, 8, name=item.source)


Importer = Callable[[Path, PreprocessConfig], Catalogue]


def imported(
    folder: Path, name: str, importer: Importer, content: Mapping[str, Files | bytes], **changes: Any
) -> Catalogue:
    """Write the archives, acquire them under `folder/raw`, and read them with the importer."""
    for file, files in content.items():
        write_archive(folder / "archives" / file, files)
    write_source(folder / "source.json", name, folder / "archives", **changes)
    acquire(folder / "source.json", folder / "raw", str(folder / "archives"))
    return importer(folder / "raw", PreprocessConfig(image_size=8))
