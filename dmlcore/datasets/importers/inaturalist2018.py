"""`inaturalist2018`: iNaturalist 2018 by the class-disjoint lists of Smooth-AP. A class is a species."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.acquire.raw_tar import RawTar
from dmlcore.datasets.prepare.catalogue import Catalogue, Half, Item, imported_catalogue, read_rows

LISTS: dict[Half, str] = {"train": "Inaturalist_train_set1.txt", "test": "Inaturalist_test_set1.txt"}


def load_catalogue(raw: Path, config: PreprocessConfig) -> Catalogue:
    """List the images of iNaturalist 2018; class = the species' folder (`Plantae/7477`), super-class = its kingdom's.

    Reference:
        Brown et al., "Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval", 2020: the two lists.

    Raises:
        DataError: a list breaks its format, an image is absent, or the counts are not the published ones.
    """
    return imported_catalogue(raw, lambda tar: [*_items(tar, "train"), *_items(tar, "test")])


def _items(tar: RawTar, half: Half) -> Iterator[Item]:
    for (path,) in read_rows(tar, LISTS[half], 1):
        parts = PurePosixPath(path).parts
        if len(parts) != 4:
            raise DataError(f"{LISTS[half]}: a path must be train_val2018/KINGDOM/SPECIES/FILE, got {path!r}")
        _, kingdom, species, _ = parts
        name = f"{kingdom}/{species}"
        yield Item(name, kingdom, path, split_text=name, official=half)
