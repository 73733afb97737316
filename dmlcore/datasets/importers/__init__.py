"""Importers of data sets, one file per kind, found by its name: `load_catalogue(raw, config) -> Catalogue`.

No module lists them: a stage of DVC depends on the importer of its own kind alone, so that a new file restales nothing.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from dmlcore.config.data import PreprocessConfig
from dmlcore.datasets.prepare.catalogue import Catalogue


def load_catalogue(kind: str, raw: Path, config: PreprocessConfig) -> Catalogue:
    """List the images of the data set in `raw` by the importer of its kind.

    Args:
        kind: one of dmlcore.config.data.KINDS, the name of a module here.
        raw: folder that stage `download` wrote.
        config: section `preprocess` of the data set.

    Raises:
        DataError: a raw file is missing, damaged, or not the published one.
    """
    importer = importlib.import_module(f"{__name__}.{kind}")
    catalogue: Catalogue = importer.load_catalogue(raw, config)
    return catalogue
