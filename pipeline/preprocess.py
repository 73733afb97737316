"""Stage `preprocess@NAME`: raw/NAME -> manifest, encoded images and summary in prepared/NAME. Runs in data/."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dmlcore.config.base import ConfigError
from dmlcore.config.data import load_datasets
from dmlcore.core.errors import DataError, one_line
from dmlcore.datasets.importers import load_catalogue
from dmlcore.datasets.prepare.build import prepare


def main() -> None:
    """Read the data set's `preprocess` section, write prepared/NAME."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="a data set of params.yaml")
    name = parser.parse_args().name
    dataset = load_datasets(Path("params.yaml")).datasets[name]
    raw = Path("raw") / name
    catalogue = load_catalogue(dataset.kind, raw, dataset.preprocess)
    prepare(name, catalogue, dataset.preprocess, Path("prepared") / name, raw=raw)


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, DataError, OSError) as error:
        sys.exit(f"preprocess: {one_line(error, Path('prepared').absolute())}")
