"""Generate what this smoke test of studies/paper needs: `archives` in the published layouts, and its `params.yaml`.

`python generate.py archives LAYOUT` writes archives/LAYOUT: small archives of drawn pictures in the layout of a published
data set, never the real data. `python generate.py params` writes params.yaml: the params of studies/paper, made small.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from tests.synthetic.archives import write_archives  # noqa: E402
from tests.synthetic.config import SyntheticConfig  # noqa: E402
from tests.synthetic.smoke_config import smoke_params_text  # noqa: E402

LAYOUTS = {
    "cub200": SyntheticConfig(seed=1),
    "cars196": SyntheticConfig(seed=2),
    "sop": SyntheticConfig(seed=3),
    "inaturalist2018": SyntheticConfig(seed=4),
}


def main(what: str, layout: str = "") -> None:
    """Write params.yaml or the archives of one layout next to this file."""
    if what == "params":
        text = smoke_params_text(ROOT / "studies" / "paper")
        (HERE / "params.yaml").write_text(text, encoding="utf-8")
    else:
        source = ROOT / "data" / "sources" / f"{layout}.json"
        write_archives(layout, LAYOUTS[layout], source, HERE / "archives" / layout)


if __name__ == "__main__":
    if sys.argv[1:] != ["params"] and (
        sys.argv[1:2] != ["archives"] or sys.argv[2:] not in [[k] for k in LAYOUTS]
    ):
        sys.exit(f"usage: generate.py params | generate.py archives {{{','.join(LAYOUTS)}}}")
    main(*sys.argv[1:])
