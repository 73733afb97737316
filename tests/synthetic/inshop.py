"""The layout of In-Shop: `img.zip`, folders of items, and the list of training, query and gallery images."""

from __future__ import annotations

from tests.synthetic.config import SyntheticConfig
from tests.synthetic.containers import lines, zip_file
from tests.synthetic.pictures import encoded_pictures

LIST = "list_eval_partition.txt"
KINDS = ("WOMEN/Dresses", "MEN/Jackets_Vests", "WOMEN/Tees_Tanks")
COLUMNS = ("image_name", "item_id", "evaluation_status")


def inshop_archives(config: SyntheticConfig) -> dict[str, bytes]:
    """File name -> bytes: the first half of the classes trains; of the others every second image is a query."""
    members: dict[str, bytes] = {}
    rows: list[tuple[str, ...]] = []
    for label, number, data in encoded_pictures(config):
        item = f"id_{label + 1:08d}"
        path = f"img/{KINDS[label % len(KINDS)]}/{item}/{number + 1:02d}_1_front.jpg"
        members[path] = data
        rows.append(
            (path, item, "train" if label < config.classes // 2 else ("query", "gallery")[number % 2])
        )
    return {"img.zip": zip_file(members), LIST: _padded_list(rows)}


def inshop_queries(config: SyntheticConfig) -> int:
    """How many of the test images are queries."""
    return (config.classes - config.classes // 2) * ((config.images_per_class + 1) // 2)


def _padded_list(rows: list[tuple[str, ...]]) -> bytes:
    width = max(len(path) for path, _, _ in rows)
    padded = [f"{path:<{width}} {item} {status}" for path, item, status in rows]
    return lines([str(len(rows)), " ".join(COLUMNS), *padded])
