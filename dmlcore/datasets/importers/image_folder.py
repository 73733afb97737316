"""`image_folder`: the user's own photographs, one folder per class, copied into one tar at download."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.core.text import decode_text, differing_by_normalisation, normalised
from dmlcore.datasets.acquire.raw_tar import IMAGES_TAR, RawTar
from dmlcore.datasets.prepare.catalogue import Catalogue, Item, encoded_catalogue
from dmlcore.datasets.prepare.plugins import require_plugins

NOUNS = {"class_name": "class", "file": "file"}
"""What a column of a table names."""


def load_catalogue(raw: Path, config: PreprocessConfig) -> Catalogue:
    """List the images of raw/NAME, with super-classes and groups from the CSVs that `config` names."""
    tar = RawTar.open(raw / IMAGES_TAR)
    class_of = {path: _class_name(path, config) for path in sorted(tar.members) if "/" in path}
    require_plugins(class_of)
    twins = differing_by_normalisation(class_of.values())
    if config.merge_names:
        class_of = {path: _merged(name, twins) for path, name in class_of.items()}
    super_classes = _super_classes(tar, sorted(set(class_of.values())), config)
    groups = _groups(tar, class_of, config)
    catalogue = encoded_catalogue(
        tar,
        [
            Item(name, super_classes[name], path, split_text=name, group=groups.get(path, ""))
            for path, name in class_of.items()
        ],
        description="images from the user's own class folders",
        licence="the user's own: not known to this project",
    )
    return replace(catalogue, notes=tuple(_note(names, config) for names in twins.values()))


def _class_name(path: str, config: PreprocessConfig) -> str:
    top, *deeper, _ = path.split("/")
    if deeper and config.nested_folders == "refuse":
        raise DataError(
            f"{path}: a class folder holds images only, got a folder in it; set `nested_folders` to join or classes"
        )
    return "/".join((top, *deeper)) if config.nested_folders == "classes" else top


def _merged(name: str, twins: Mapping[str, list[str]]) -> str:
    return normalised(name) if normalised(name) in twins else name


def _note(names: list[str], config: PreprocessConfig) -> str:
    listed = ", ".join(map(ascii, names))
    if config.merge_names:
        return f"the folders {listed} are one class: their names differ only by Unicode normalisation"
    return (
        f"the classes {listed} differ only by the Unicode normalisation of their names; if they are one class, "
        "set `merge_names: true`"
    )


def _super_classes(tar: RawTar, classes: Iterable[str], config: PreprocessConfig) -> Mapping[str, str]:
    if config.super_classes is None:
        if config.nested_folders == "classes":
            return {name: name.split("/")[0] for name in classes}
        if config.split.unit == "super_class":
            raise DataError(
                "split unit `super_class` needs `super_classes`, the CSV in the source folder; got none"
            )
        return {name: name for name in classes}
    known = _read_table(tar, config.super_classes, "class_name", "super_class")
    composed = {normalised(name): group for name, group in known.items()}
    found = {name: known.get(name) or composed.get(normalised(name)) for name in classes}
    if missing := [name for name, group in found.items() if not group]:
        raise DataError(f"{config.super_classes}: class {missing[0]!r} has no super_class; add its row")
    return {name: group for name, group in found.items() if group}


def _groups(tar: RawTar, paths: Iterable[str], config: PreprocessConfig) -> Mapping[str, str]:
    """Return the group of each image by its path; nothing where no CSV of them is named."""
    if config.groups is None:
        return {}
    # macOS hands file names out decomposed, which an editor may have composed in the CSV.
    known = _read_table(tar, config.groups, "file", "group")
    composed = {normalised(path): group for path, group in known.items()}
    found = {path: known.get(path) or composed.get(normalised(path)) for path in paths}
    if missing := [path for path, group in found.items() if not group]:
        raise DataError(
            f"{config.groups}: {len(missing)} image(s) have no group, the first is {missing[0]!r}; add their rows, "
            "with the path below the source folder"
        )
    return {path: group for path, group in found.items() if group}


def _read_table(tar: RawTar, name: str, key: str, value: str) -> Mapping[str, str]:
    if name not in tar.members:
        raise DataError(f"{name!r}: no such file at the top of the source folder; put it there")
    try:
        # Without the byte order mark, and with the error of `decode_text` for another encoding.
        table = pl.read_csv(decode_text(tar.read(name), name).encode(), infer_schema=False).select(key, value)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{name}: must be CSV with the columns {key}, {value}: {error}") from None
    twice = table.filter(pl.col(key).is_duplicated())
    if not twice.is_empty():
        raise DataError(f"{name}: a {NOUNS[key]} must have one row, got {twice.rows()[:2]}")
    return dict(table.rows())
