"""The manifest: one row per image, and the rules that a prepared data set must satisfy.

Rows are sorted by split (train, validation, test), label and source, so that each split is one slice of `images.bin`.
"""

from __future__ import annotations

import polars as pl

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError

SPLITS = ("train", "validation", "test")

SCHEMA: dict[str, pl.DataType] = {
    "index": pl.Int64(),
    "split": pl.String(),
    "class_name": pl.String(),
    "label": pl.Int64(),
    "super_class": pl.String(),
    "role": pl.String(),
    "source": pl.String(),
    "sha256": pl.String(),
    "height": pl.Int64(),
    "width": pl.Int64(),
    "offset": pl.Int64(),
    "length": pl.Int64(),
}
OPTIONAL: dict[str, pl.DataType] = {"group": pl.String()}
"""Of data sets that have it, after the columns of SCHEMA: camera, sequence or encounter of the image."""
ROLES = ("gallery", "query", "both")


def validate(manifest: pl.DataFrame, config: PreprocessConfig, *, channels: int, size_bytes: int) -> None:
    """Refuse a manifest that breaks a rule.

    Args:
        manifest: the rows, columns as in SCHEMA.
        config: its encoding, split protocol and unit, and `on_duplicates`.
        channels: of every image.
        size_bytes: length of the file of images.

    Raises:
        DataError: with the first row that breaks a rule, the rule and the value.
    """
    check_columns(manifest)
    check_pixels(manifest, encoding=config.encoding, channels=channels, size_bytes=size_bytes)
    _check_labels(manifest)
    _check_splits(manifest, config)
    alone = manifest.filter(pl.col("split") != "train").filter(pl.len().over("split", "label") < 2)
    if config.lone_images != "gallery":
        _refuse(
            alone, "a test or validation class must have at least 2 images, else its query has no positive"
        )
    if "group" in manifest.columns:
        _check_groups(manifest)
    if config.on_duplicates == "error":
        _check_duplicates(manifest)


def check_columns(manifest: pl.DataFrame) -> None:
    """Check columns, types, nulls, row numbers, and the names of splits and roles."""
    if dict(manifest.schema) not in (SCHEMA, SCHEMA | OPTIONAL):
        raise DataError(
            f"manifest: columns must be {SCHEMA}, or {OPTIONAL} besides, got {dict(manifest.schema)}"
        )
    if manifest.is_empty():
        raise DataError("manifest: must hold images, got none")
    for column in manifest.columns:
        _refuse(manifest.filter(pl.col(column).is_null()), f"`{column}` must be filled in")
    numbered = manifest.filter(pl.col("index") != pl.int_range(pl.len()))
    _refuse(numbered, "`index` must number the rows from 0")
    _refuse(manifest.filter(~pl.col("split").is_in(SPLITS)), f"`split` must be one of {SPLITS}")
    _refuse(manifest.filter(~pl.col("role").is_in(ROLES)), f"`role` must be one of {ROLES}")


def check_pixels(manifest: pl.DataFrame, *, encoding: str, channels: int, size_bytes: int) -> None:
    """Check that the images fill the file one after another, and that raw pixels have the length of their shape."""
    for column in ("height", "width", "length"):
        _refuse(manifest.filter(pl.col(column) < 1), f"`{column}` must be positive")
    if encoding == "raw":
        shape = pl.col("height") * pl.col("width") * channels
        _refuse(manifest.filter(pl.col("length") != shape), f"`length` must be height x width x {channels}")
    beyond = (pl.col("offset") < 0) | (pl.col("offset") + pl.col("length") > size_bytes)
    _refuse(manifest.filter(beyond), f"`offset` + `length` must be within the file of {size_bytes} bytes")
    # No gaps or overlaps: the data hash covers every byte once.
    expected = pl.col("length").cum_sum() - pl.col("length")
    _refuse(manifest.filter(pl.col("offset") != expected), "`offset` must follow the row before it")
    if size_bytes != manifest["length"].sum():
        raise DataError(
            f"images: the file must have the {manifest['length'].sum()} bytes of the manifest's rows, got {size_bytes}"
        )


def cross_class_duplicates(manifest: pl.DataFrame) -> pl.DataFrame:
    """Return the rows whose pixels also occur in another class, ordered by pixels."""
    return manifest.filter(pl.col("label").n_unique().over("sha256") > 1).sort("sha256", "index")


def _check_labels(manifest: pl.DataFrame) -> None:
    known = manifest["label"].unique().sort()
    gaps = sorted(set(range(len(known))) ^ set(known.to_list()))
    if gaps:
        raise DataError(
            f"manifest: labels must be 0..C-1 without a gap, got {len(known)} labels, wrong at {gaps[:5]}"
        )
    for one, other in [("label", "class_name"), ("class_name", "label"), ("class_name", "super_class")]:
        mixed = manifest.filter(pl.col(other).n_unique().over(one) > 1)
        _refuse(mixed, f"each `{one}` must have one `{other}`")


def _check_splits(manifest: pl.DataFrame, config: PreprocessConfig) -> None:
    for split in SPLITS:
        if manifest.filter(pl.col("split") == split).is_empty():
            raise DataError(
                f"manifest: split `{split}` must have images, got none; change its share or names"
            )
    if config.split.protocol == "closed":
        return
    columns = ["class_name"] if config.split.unit == "class" else ["class_name", "super_class"]
    for column in columns:
        first = pl.col("split").first().over(column)
        _refuse(manifest.filter(pl.col("split") != first), f"one `{column}` must be in one split only")


def _check_groups(manifest: pl.DataFrame) -> None:
    _refuse(manifest.filter(pl.col("group") == ""), "`group` must be filled in for all images or for none")
    for split in ("validation", "test"):
        rows = manifest.filter(split=split)
        if rows.filter(pl.col("group").n_unique().over("label") > 1).is_empty():
            raise DataError(
                f"manifest: a class of split `{split}` must have images of two groups, got none: two images of one "
                "class and one group are no pair, so nothing could be evaluated; change the split or the groups"
            )


def _check_duplicates(manifest: pl.DataFrame) -> None:
    rows = cross_class_duplicates(manifest)
    if rows.is_empty():
        return
    first = rows.row(0, named=True)
    second = rows.filter(sha256=first["sha256"]).filter(pl.col("label") != first["label"]).row(0, named=True)
    names = ", ".join(
        f"row {row['index']} ({row['source']!r} of {row['class_name']!r})" for row in (first, second)
    )
    raise DataError(
        f"manifest: identical images in two classes: {names}; {len(rows)} such rows in all. "
        "Remove one, or set `on_duplicates: report` to count them instead"
    )


def _refuse(faulty: pl.DataFrame, rule: str) -> None:
    if not faulty.is_empty():
        row = {key: value for key, value in faulty.row(0, named=True).items() if key != "sha256"}
        raise DataError(f"manifest row {row['index']}: {rule}; got {row} ({len(faulty)} such rows)")
