"""A frozen-trunk sweep of 100 trials against one that fine-tunes, ten trials of it run and scaled to 100.

`python -m benchmarks.frozen_trunk` prints a table. Both train the same network on the same generated photographs (60
classes x 12 images, side 72, crops of 64) with the same steps, margins and losses; the trials run one after another by
`run_trial` in this process, so nothing of the sweep's own overhead is counted. The frozen sweep's time includes
embedding every image once.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from dmlcore.config.base import parse
from dmlcore.config.data import PreprocessConfig, SplitConfig
from dmlcore.config.sweep import merge
from dmlcore.config.trial import TrialConfig
from dmlcore.data.dataset import PreparedDataset
from dmlcore.datasets.prepare.build import prepare
from dmlcore.datasets.prepare.catalogue import Catalogue, Item
from dmlcore.training import run_trial
from dmlcore.training.store import TrialStore
from tests.synthetic.archives import SyntheticConfig
from tests.synthetic.pictures import encoded_pictures

SIDE, SIZE = 72, 64
LOSSES = ("multi_similarity", "smooth_ap", "proxy_anchor", "contrastive")
MARGINS = [
    (positive, negative) for positive in (0.5, 0.6, 0.7, 0.8, 0.9) for negative in (0.2, 0.3, 0.4, 0.5, 0.6)
]
TRIAL: dict[str, Any] = {
    "dataset": "pictures",
    "input": {"size": SIZE},
    "model": {"backbone": {"name": "resnet18"}, "embedding_dim": 128},
    "train": {"epochs": 3, "batch_size": 64, "batches_per_epoch": 8},
    "threads": 1,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frozen", type=int, default=100, help="trials on the frozen trunk")
    parser.add_argument("--full", type=int, default=10, help="trials that fine-tune")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = pictures(Path(folder) / "data")
        frozen = sweep(data, Path(folder) / "frozen", arguments.frozen, {"model": {"trunk": "frozen"}})
        full = sweep(data, Path(folder) / "full", arguments.full, {}) * arguments.frozen / arguments.full
    print(f"{arguments.full} full trials, scaled to {arguments.frozen}: {full:.0f} s")
    print(f"{arguments.frozen} trials on a frozen trunk: {frozen:.0f} s, {frozen / full:.3f} of it")


def sweep(data: PreparedDataset, folder: Path, count: int, changes: dict[str, Any]) -> float:
    """Seconds that `count` trials take: every loss at every pair of margins, in turn."""
    points = islice(cycle((loss, margins) for margins in MARGINS for loss in LOSSES), count)
    started = time.perf_counter()
    for number, (loss, margins) in enumerate(points):
        tcm = {
            "name": "tcm",
            "params": dict(zip(("positive_margin", "negative_margin"), margins, strict=True)),
        }
        config = merge(TRIAL, changes) | {"loss": {"name": loss}, "regularizers": [tcm]}
        run_trial(parse(TrialConfig, config, "benchmark"), data, store=TrialStore(folder / str(number)))
    return time.perf_counter() - started


def pictures(folder: Path, side: int = SIDE) -> PreparedDataset:
    """Generated photographs, prepared as JPEG."""
    config = SyntheticConfig(classes=60, images_per_class=12, side=side, seed=0)
    files = {
        Item(f"class {label:03}", "all", f"{label}/{number}", split_text=str(label)): data
        for label, number, data in encoded_pictures(config)
    }
    catalogue = Catalogue(tuple(files), files.__getitem__, 3, "generated pictures", "none")
    settings = PreprocessConfig(
        image_size=side, encoding="jpeg", on_duplicates="report", split=SplitConfig(test_share=0.3)
    )
    prepare("pictures", catalogue, settings, folder)
    return PreparedDataset.open(folder)


if __name__ == "__main__":
    main()
