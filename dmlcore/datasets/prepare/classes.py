"""Which classes stay: those of one image by the setting, and those that a broken image leaves with too few.

A test or validation class needs 2 images: its query has a positive then. A broken image is found after the split is
drawn and the images are encoded; the split is then drawn anew, and the encoded images are put into its order.
"""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.data.manifest import SPLITS
from dmlcore.datasets.prepare.catalogue import Catalogue, Item
from dmlcore.datasets.prepare.near_duplicates import LISTED
from dmlcore.datasets.prepare.splits import assign_splits, without_units

ENOUGH = 2
"""Images of a class: a query and its positive."""


def without_lone_images(catalogue: Catalogue, config: PreprocessConfig) -> Catalogue:
    """Return the catalogue without the classes of one image if `lone_images` drops them, and a note of their names."""
    counts = Counter(item.class_name for item in catalogue.items)
    lone = {name for name, count in counts.items() if count < ENOUGH}
    if config.lone_images != "drop" or not lone:
        return catalogue
    kept = tuple(item for item in catalogue.items if item.class_name not in lone)
    note = f"{len(lone)} class(es) of one image are left out: {_listed(lone)}"
    return replace(catalogue, items=kept, notes=(*catalogue.notes, note))


def ordered_rows(catalogue: Catalogue, config: PreprocessConfig) -> pl.DataFrame:
    """Return the manifest's columns that are known before an image is read, and `item`, its place in the catalogue.

    Raises:
        DataError: no images, a split rule that does not suit them, a split without images, or a class of one image in
            test or validation that `lone_images` refuses.
    """
    if not catalogue.items:
        raise DataError("the data set has no images; look at its `source`")
    rows = _drawn(catalogue.items, range(len(catalogue.items)), config)
    for split in SPLITS:
        if rows.filter(split=split).is_empty():
            raise DataError(f"split `{split}` must have images, got none; change its share or names")
    alone = rows.filter(pl.col("class_name").is_in(_alone(rows, config)) & (pl.col("split") != "train"))
    if not alone.is_empty():
        row = alone.row(0, named=True)
        raise DataError(
            f"a test or validation class must have at least 2 images, else its query has no positive; got {row} "
            f"({len(alone)} such rows); add images, or set `lone_images` to drop or gallery"
        )
    return rows


@dataclass(frozen=True)
class Grouped:
    """The images of a data set in the order of its manifest."""

    rows: pl.DataFrame
    """Of `ordered_rows`."""
    encoded: pl.DataFrame
    """The journal's table, row by row."""
    left_out: tuple[str, ...] = ()
    """Classes that a broken image left with too few."""
    places: tuple[tuple[int, int], ...] | None = None
    """Offset and length of each image where it was encoded; None: it is in its place."""

    @property
    def notes(self) -> list[str]:
        """Return what the user should know."""
        names = _listed(self.left_out)
        return (
            [f"{len(self.left_out)} class(es) are left out, too small without broken images: {names}"]
            if names
            else []
        )


def regrouped(
    catalogue: Catalogue, config: PreprocessConfig, rows: pl.DataFrame, encoded: pl.DataFrame
) -> Grouped:
    """Leave out the classes that broken images leave with too few, and draw the split without them.

    Where no class is lost, rows and split stay as they are.
    """
    both = rows.hstack(encoded).with_columns(offset=pl.col("length").cum_sum() - pl.col("length"))
    good, broken = both.filter(error=""), both.filter(pl.col("error") != "")
    lost = _too_small(good, broken, config)
    if broken.is_empty() or not lost:
        return Grouped(rows, encoded)
    while True:
        kept = good.filter(~pl.col("class_name").is_in(lost))
        drawn = _drawn(catalogue.items, kept["item"].sort().to_list(), config)
        # Fewer classes move the borders of the splits: a class of one image may come from train into test.
        if not (alone := _alone(drawn, config)):
            break
        lost |= alone
    ordered = drawn.join(both.select("item", "offset", *encoded.columns), on="item", maintain_order="left")
    places = tuple(ordered.select("offset", "length").iter_rows())
    told = pl.concat([ordered.select(encoded.columns), broken.select(encoded.columns)])
    return Grouped(pl.concat([drawn, broken.select(drawn.columns)]), told, tuple(sorted(lost)), places=places)


def repack(images: Path, packed: Path, places: Sequence[tuple[int, int]]) -> None:
    """Write the images at `places` of one file to another, in that order."""
    with images.open("rb") as source, packed.open("wb") as target:
        with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for offset, length in places:
                target.write(data[offset : offset + length])
        target.flush()
        os.fsync(target.fileno())


def _drawn(items: Sequence[Item], chosen: Sequence[int], config: PreprocessConfig) -> pl.DataFrame:
    kept = [items[place] for place in chosen]
    columns = {"split": assign_splits(kept, without_units(items, kept, config.split))}
    grouped = ("group",) if any(item.group for item in items) else ()
    for column in ("class_name", "super_class", "role", "source", *grouped):
        columns[column] = [getattr(item, column) for item in kept]
    rows = pl.DataFrame(columns).insert_column(0, pl.Series("item", chosen, dtype=pl.UInt32))
    # By split first: each split is then one slice of images.bin.
    return rows.sort(pl.col("split").cast(pl.Enum(SPLITS)), "class_name", "source")


def _too_small(good: pl.DataFrame, broken: pl.DataFrame, config: PreprocessConfig) -> set[str]:
    least = 1 if config.lone_images == "gallery" else ENOUGH
    left = Counter(good["class_name"])
    return {name for name in set(broken["class_name"]) if left[name] < least} | _alone(good, config)


def _alone(rows: pl.DataFrame, config: PreprocessConfig) -> set[str]:
    """Return the classes with one image in a split in which it would be a query."""
    if config.lone_images == "gallery":
        return set()
    few = rows.filter(pl.col("split") != "train").filter(pl.len().over("split", "class_name") < ENOUGH)
    return set(few["class_name"])


def _listed(names: Sequence[str] | set[str]) -> str:
    return ", ".join(map(repr, sorted(names)[:LISTED]))
