"""`inshop`: DeepFashion In-shop Clothes Retrieval. In the test half, queries search the gallery only."""

from __future__ import annotations

from pathlib import Path

from dmlcore.config.data import PreprocessConfig
from dmlcore.core.errors import DataError
from dmlcore.core.text import text_lines
from dmlcore.datasets.acquire.raw_tar import RawTar
from dmlcore.datasets.prepare.catalogue import (
    Catalogue,
    Half,
    Item,
    Role,
    imported_catalogue,
    parse_count,
    read_rows,
)

LIST = "list_eval_partition.txt"
HEAD = ("image_name", "item_id", "evaluation_status")
HALVES: dict[str, tuple[Half, Role]] = {
    "train": ("train", "both"),
    "query": ("test", "query"),
    "gallery": ("test", "gallery"),
}


def load_catalogue(raw: Path, config: PreprocessConfig) -> Catalogue:
    """List the images of In-shop Clothes Retrieval; class = item, super-class = its garment (`WOMEN/Dresses`).

    An item that is in the folders of two garments takes the one that is first in the alphabet.
    """
    return imported_catalogue(raw, _items)


def _items(tar: RawTar) -> list[Item]:
    count = next(iter(text_lines(tar.read(LIST), LIST)), "").strip()
    rows = [*read_rows(tar, LIST, len(HEAD), skip=1, head=HEAD)]
    if len(rows) != parse_count(count, f"{LIST}, line 1"):
        raise DataError(f"{LIST}: line 1 announces {count} images, {len(rows)} are listed")
    garments: dict[str, str] = {}
    # Sorted, so that the first garment is taken whatever the list's order.
    for path, item_id, _ in sorted(rows):
        garments.setdefault(item_id, _garment(path))
    return [_item(path, item_id, status, garments[item_id]) for path, item_id, status in rows]


def _garment(path: str) -> str:
    parts = path.split("/")
    if len(parts) != 5:
        raise DataError(f"{LIST}: a path must be img/WHO/GARMENT/ITEM/FILE, got {path!r}")
    return "/".join(parts[1:3])


def _item(path: str, item_id: str, status: str, garment: str) -> Item:
    if status not in HALVES:
        raise DataError(f"{LIST}: {path!r} must have a status of {', '.join(HALVES)}, got {status!r}")
    half, role = HALVES[status]
    return Item(item_id, garment, path, split_text=item_id, role=role, official=half)
