"""The layout of CUB-200-2011: `CUB_200_2011.tgz` with numbered class folders and lists that number the images."""

from __future__ import annotations

from tests.synthetic.config import SyntheticConfig
from tests.synthetic.containers import lines, tar_gz
from tests.synthetic.pictures import encoded_pictures

TOP = "CUB_200_2011"

TRAINING_CLASSES = 100
"""The published split is after class 100, however few classes there are."""


def cub200_archives(config: SyntheticConfig) -> dict[str, bytes]:
    """File name -> bytes of the archive. Its `train_test_split.txt` is a closed-set split, as in the published one."""
    pictures = {
        (label, f"{_class_name(label, config)}/Generated_bird_{number + 1:04d}_{label}.jpg"): data
        for label, number, data in encoded_pictures(config)
    }
    numbered = list(enumerate(pictures, start=1))
    lists = {
        "images.txt": [f"{index} {path}" for index, (_, path) in numbered],
        "image_class_labels.txt": [f"{index} {_class_id(label, config)}" for index, (label, _) in numbered],
        "train_test_split.txt": [f"{index} {index % 2}" for index, _ in numbered],
        "classes.txt": [
            f"{_class_id(label, config)} {_class_name(label, config)}" for label in range(config.classes)
        ],
    }
    members = {f"{TOP}/images/{path}": data for (_, path), data in pictures.items()}
    members |= {f"{TOP}/{name}": lines(rows) for name, rows in lists.items()}
    return {"CUB_200_2011.tgz": tar_gz(members)}


def _class_id(label: int, config: SyntheticConfig) -> int:
    """1, 2, ... for the first half of the classes, 101, 102, ... for the second."""
    half = config.classes // 2
    return label + 1 if label < half else TRAINING_CLASSES + label - half + 1


def _class_name(label: int, config: SyntheticConfig) -> str:
    return f"{_class_id(label, config):03d}.Generated_bird_{label + 1}"
