"""Stage `imitate@LAYOUT`: generated archives in a published layout in imitations/LAYOUT. Runs in data/."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dmlcore.config import ConfigError, load_datasets
from dmlcore.data.errors import DataError
from dmlcore.data.imitations.imitate import imitate


def main() -> None:
    """Read the layout's section under `imitations`, write imitations/LAYOUT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("layout", help="a key of `imitations` in params.yaml")
    layout = parser.parse_args().layout
    config = load_datasets(Path("params.yaml")).imitations[layout]
    imitate(layout, config, Path("sources") / f"{layout}.json", Path("imitations") / layout)


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, DataError) as error:
        sys.exit(f"imitate: {error}")
