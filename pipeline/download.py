"""Stage `download@NAME`: the verified raw files of a data set in raw/NAME. Runs in data/."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dmlcore.config.base import ConfigError
from dmlcore.config.data import load_datasets
from dmlcore.core.errors import DataError, one_line
from dmlcore.datasets.acquire.acquire import LOCAL, acquire


def main() -> None:
    """Read the data set's `kind`, `source` and `archives`, write raw/NAME."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="a data set of params.yaml")
    name = parser.parse_args().name
    dataset = load_datasets(Path("params.yaml")).datasets[name]
    source, folder = Path(dataset.source), Path("raw") / name
    if dataset.kind in LOCAL:
        LOCAL[dataset.kind](source, folder)
    else:
        acquire(source, folder, dataset.archives)


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, DataError, OSError) as error:
        sys.exit(f"download: {one_line(error, Path('raw').absolute())}")
