"""Fashion-MNIST: 70,000 pictures of clothes in the idx files of MNIST."""

from __future__ import annotations

from pathlib import Path

from dmlcore.config.data import PreprocessConfig
from dmlcore.datasets.prepare.arrays import idx_catalogue
from dmlcore.datasets.prepare.catalogue import Catalogue

PREFIX = "fashion-"
"""Of its file names here: they are published under the names of MNIST's, and both sets may be in one folder."""

CLASS_NAMES = (
    *("T-shirt", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
"""In the order of the published labels."""


def load_catalogue(raw: Path, config: PreprocessConfig) -> Catalogue:
    """List the pictures of raw/NAME.

    Raises:
        DataError: a file is missing, damaged or has other counts than the published ones.
    """
    return idx_catalogue(raw, config, CLASS_NAMES, prefix=PREFIX)
