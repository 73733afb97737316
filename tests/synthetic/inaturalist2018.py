"""The layout of iNaturalist-2018: `train_val2018.tar.gz`, species folders by kingdom, next to the two split lists."""

from __future__ import annotations

import hashlib

from tests.synthetic.config import SyntheticConfig
from tests.synthetic.containers import lines, tar_gz
from tests.synthetic.pictures import encoded_pictures

KINGDOMS = ("Aves", "Insecta", "Plantae")


def inaturalist2018_archives(config: SyntheticConfig) -> dict[str, bytes]:
    """File name -> bytes of the archive and of the lists, one path a line: the first half of the classes trains."""
    members: dict[str, bytes] = {}
    rows: dict[str, list[str]] = {"train": [], "test": []}
    for label, _, data in encoded_pictures(config):
        name = hashlib.md5(data, usedforsecurity=False).hexdigest()
        path = f"train_val2018/{KINGDOMS[label % len(KINGDOMS)]}/{label}/{name}.jpg"
        members[path] = data
        rows["train" if label < config.classes // 2 else "test"].append(path)
    lists = {f"Inaturalist_{half}_set1.txt": lines(rows[half]) for half in rows}
    return {"train_val2018.tar.gz": tar_gz(members), **lists}
