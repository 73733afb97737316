"""`image_folder`: anyone's own photographs, one folder a class, packed into one file at download.

The folder is untrusted input: links out of it, files that are no images, names that are no text and images that would
fill the memory are refused by name. Nothing is ever unpacked to disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from dmlcore.config import PreprocessConfig
from dmlcore.data.catalogue import Catalogue, Item
from dmlcore.data.errors import DataError
from dmlcore.data.files import replaced_folder
from dmlcore.data.pack import PACK, Pack, encoded_catalogue, write_pack
from dmlcore.data.photographs import SUFFIXES

CLUTTER = ("Thumbs.db", "desktop.ini")
"""What desktops leave in folders; left out like hidden files (.DS_Store)."""


def pack_folder(source: Path, folder: Path) -> None:
    """Write the images of `source` (class folders) and its CSV files to `folder/images.tar`, sorted and undated.

    The same files give the same bytes, so that DVC sees exactly when an image, a name or a super-class changes.

    Raises:
        DataError: naming the file that breaks a rule.
    """
    paths = [*_tables(source), *_images(source)]
    with replaced_folder(folder) as temporary:
        write_pack(
            temporary / PACK, ((path.relative_to(source).as_posix(), path.read_bytes()) for path in paths)
        )


def folder_catalogue(raw: Path, config: PreprocessConfig) -> Catalogue:
    """The images of a pack, super-classes from the CSV that `config.super_classes` names.

    Raises:
        DataError: a class without a super-class, or a rule that needs what is not there.
    """
    pack = Pack.open(raw / PACK)
    images = sorted(name for name in pack.places if "/" in name)
    super_classes = _super_classes(pack, sorted({_class_name(path) for path in images}), config)
    return encoded_catalogue(
        pack,
        [_item(path, super_classes) for path in images],
        description="images from the user's own class folders",
        licence="the user's own: not known to this project",
    )


def _class_name(path: str) -> str:
    return path.split("/")[0]


def _item(path: str, super_classes: Mapping[str, str]) -> Item:
    name = _class_name(path)
    return Item(name, super_classes[name], path, split_text=name)


def _tables(source: Path) -> list[Path]:
    return sorted(
        path for path in _entries(source, source) if path.suffix.lower() == ".csv" and path.is_file()
    )


def _images(source: Path) -> list[Path]:
    folders = sorted(path for path in _entries(source, source) if path.is_dir())
    if not folders:
        raise DataError(f"{source}: must hold one folder of images a class, got no folder")
    return [image for folder in folders for image in _class_images(folder, source)]


def _class_images(folder: Path, source: Path) -> list[Path]:
    images = sorted(_entries(folder, source))
    if not images:
        raise DataError(f"{folder}: a class folder must hold images, got none; remove the folder")
    for path in images:
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            raise DataError(f"{path}: a class folder holds images only ({', '.join(SUFFIXES)}); move it away")
    return images


def _entries(folder: Path, source: Path) -> Iterable[Path]:
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; `source` names the folder of class folders, relative to data/"
        )
    root = source.resolve()
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in CLUTTER:
            continue
        if not path.name.isprintable():
            # What is no UTF-8 arrives as lone surrogates, which are not printable either.
            raise DataError(f"{str(path)!r}: a name must be printable UTF-8 text; rename it")
        if not path.resolve().is_relative_to(root):
            raise DataError(f"{path}: a link must not lead out of {source}; copy the file instead")
        yield path


def _super_classes(pack: Pack, classes: Iterable[str], config: PreprocessConfig) -> Mapping[str, str]:
    if config.super_classes is None:
        if config.split.unit == "super_class":
            raise DataError(
                "split unit `super_class` needs `super_classes`, the CSV in the source folder; got none"
            )
        return {name: name for name in classes}
    if config.super_classes not in pack.places:
        raise DataError(
            f"{config.super_classes!r}: no such file at the top of the source folder; put it there"
        )
    known = _read_table(pack.read(config.super_classes), config.super_classes)
    for name in classes:
        if not known.get(name):
            raise DataError(f"{config.super_classes}: class {name!r} has no super_class; add its row")
    return known


def _read_table(data: bytes, name: str) -> Mapping[str, str]:
    try:
        table = pl.read_csv(data, infer_schema=False).select("class_name", "super_class")
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{name}: must be CSV with the columns class_name, super_class: {error}") from None
    twice = table.filter(pl.col("class_name").is_duplicated())
    if not twice.is_empty():
        raise DataError(f"{name}: a class must have one row, got {twice.rows()[:2]}")
    return dict(table.rows())
