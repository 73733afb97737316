"""Write archives/LAYOUT: small archives of drawn pictures in the layout of a published data set, never the real data.

Usage: `python generate.py LAYOUT`. This study's params.yaml is written by `python -m tests.smoke_config`.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from tests.synthetic.archives import write_archives  # noqa: E402
from tests.synthetic.config import SyntheticConfig  # noqa: E402

LAYOUTS = {
    "cub200": SyntheticConfig(seed=1),
    "cars196": SyntheticConfig(seed=2),
    "sop": SyntheticConfig(seed=3),
    "inaturalist2018": SyntheticConfig(seed=4),
}


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in LAYOUTS:
        sys.exit(f"usage: generate.py {{{','.join(LAYOUTS)}}}")
    layout = sys.argv[1]
    source = ROOT / "data" / "sources" / f"{layout}.json"
    write_archives(layout, LAYOUTS[layout], source, HERE / "archives" / layout)
