"""The layout of Stanford Online Products: a zip file with folders by product kind and the two Ebay lists."""

from __future__ import annotations

from tests.synthetic.config import SyntheticConfig
from tests.synthetic.containers import lines, zip_file
from tests.synthetic.pictures import encoded_pictures

TOP = "Stanford_Online_Products"
COLUMNS = "image_id class_id super_class_id path"
SUPER_CLASSES = ("bicycle", "cabinet", "chair", "coffee_maker", "fan", "kettle")


def sop_archives(config: SyntheticConfig) -> dict[str, bytes]:
    """File name -> bytes of the archive: the first half of the classes is on the training list."""
    members: dict[str, bytes] = {}
    rows: dict[str, list[str]] = {"Ebay_train.txt": [COLUMNS], "Ebay_test.txt": [COLUMNS]}
    for index, (label, number, data) in enumerate(encoded_pictures(config), start=1):
        super_class = label % len(SUPER_CLASSES)
        path = f"{SUPER_CLASSES[super_class]}_final/{110000000000 + label}_{number}.JPG"
        members[f"{TOP}/{path}"] = data
        half = "Ebay_train.txt" if label < config.classes // 2 else "Ebay_test.txt"
        rows[half].append(f"{index} {label + 1} {super_class + 1} {path}")
    members |= {f"{TOP}/{name}": lines(rows[name]) for name in rows}
    return {"Stanford_Online_Products.zip": zip_file(members)}
