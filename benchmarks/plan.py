"""How long `dmlcore plan` takes on thousands of cells: fresh processes, beside `import torch` alone.

python -m benchmarks.plan [--cells 5000] [--repeats 3]

The networks and losses of this checkout's params.yaml, with TCM at as many margins as needed. The first plan builds
every network and tries every loss; those after it find the answers in the plan's cache.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from benchmarks.startup import measure, medians
from tests.small import small_dataset

ROOT = Path(__file__).resolve().parents[1]
LOSSES = ("multi_similarity", "smooth_ap", "recall_at_k", "contrastive", "proxy_anchor")
SEEDS = 2


def params_of(cells: int) -> dict[str, Any]:
    """Return this checkout's params.yaml as a study of one data set with that many cells, in a few more at most."""
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    sweep = params["sweep"]
    sweep.pop("longer_run", None)
    sweep |= {"study": "many", "datasets": ["small"], "seeds": list(range(SEEDS))}
    sweep["losses"] = {name: {"loss": {"name": name}} for name in LOSSES}
    side = 0
    while len(sweep["backbones"]) * len(LOSSES) * SEEDS * (1 + side**2) < cells:
        side += 1
    steps = [round(0.5 * index / (side + 1), 3) for index in range(1, side + 1)]
    tcm = [{"positive_margin": 0.5 + up, "negative_margin": 0.5 - down} for up, down in product(steps, steps)]
    sweep["regularizers"] = [[], *([{"name": "tcm", "params": values}] for values in tcm)]
    return params


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small_dataset(folder / "study" / "data" / "prepared" / "small")
        (folder / "study" / "data" / "dvc.yaml").touch()  # it makes this the data of the study
        params = params_of(arguments.cells)
        (folder / "study" / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        code = f"from dmlcore.cli import app; app(['plan', '--study', '{folder / 'study'}'])"
        measure(["-c", "import dmlcore.cli, torch"], folder)  # the files from the disk
        rows: dict[str, list[tuple[float, float]]] = {"import torch": [], "first plan": [], "later plan": []}
        for repeat in range(arguments.repeats):
            os.environ["DMLCORE_CACHE"] = str(folder / f"cache{repeat}")
            for row, command in zip(rows, ("import torch", code, code), strict=True):
                rows[row].append(measure(["-c", command], folder))
    sweep = params["sweep"]
    cells = len(sweep["backbones"]) * len(LOSSES) * SEEDS * len(sweep["regularizers"])
    print(f"{cells} cells; medians of {arguments.repeats}")
    print(f"{'':14}{'seconds':>9}{'processor s':>13}")
    for row, found in rows.items():
        seconds, processor = medians(found)
        print(f"{row:14}{seconds:9.2f}{processor:13.2f}")


if __name__ == "__main__":
    main()
