"""Processor time until the embeddings of the test classes reach MAP@R 0.35, for settings of the default study.

`python -m benchmarks.time_to_accuracy` prints a table: epochs and seconds of training and validation, on one thread,
until the first epoch at whose end the test classes have that MAP@R (the test evaluations are not counted), and the same
as a ratio to the first row. One seed each: the settings differ by more than seeds do. Data set glyphs, prepared by
`make repro`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dmlcore.config.base import parse
from dmlcore.config.study import load_study
from dmlcore.config.sweep import merge
from dmlcore.config.trial import TrialConfig
from dmlcore.data.dataset import PreparedDataset
from dmlcore.metrics.evaluation import evaluate
from dmlcore.sweep.grid import expand
from dmlcore.training.run import make_deterministic
from dmlcore.training.trainer import Trainer

TARGET = 0.35
RESNET10 = {
    "name": "resnet10t",
    "arguments": {"channels": [32, 64, 128, 192], "stem_type": "", "stem_width": 32},
}
SMALL = {
    "name": "resnetv2_18",
    "arguments": {"layers": [1, 1, 1, 1], "channels": [24, 48, 64, 96], "stem_chs": 24},
}
COMMON: dict[str, Any] = {
    "dataset": "glyphs",
    "loss": {"name": "multi_similarity"},
    "model": {"pooling": "average", "normalization": "batch_norm", "channels_last": True},
    "train": {
        "batch_size": 128,
        "images_per_class": 4,
        "augmentation": {"rotation_degrees": 5.0, "scale": 0.08, "shear": 0.05, "translate": 0.05},
    },
}
SETTINGS: dict[str, dict[str, Any]] = {
    "0.1.0: ResNet-10, rate 3e-3": {
        "model": {"backbone": RESNET10},
        "train": {"epochs": 45, "optimizer": {"learning_rate": 3.0e-3}},
    },
    "a larger rate, warmed up: 2e-2": {
        "model": {"backbone": RESNET10},
        "train": {
            "epochs": 22,
            "optimizer": {"learning_rate": 2.0e-2},
            "schedule": {"warmup_epochs": 2.0},
        },
    },
    "a smaller network, more weight decay": {
        "model": {"backbone": SMALL},
        "train": {
            "epochs": 42,
            "optimizer": {"learning_rate": 3.0e-2, "weight_decay": 0.1},
            "schedule": {"warmup_epochs": 2.0},
        },
    },
}
DEFAULT_STUDY = "the default study: that network from weights of other characters"
PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"


class Run(NamedTuple):
    """`epochs` and `seconds` to TARGET, None if it was not reached; `end` is MAP@R after the last epoch."""

    epochs: int | None
    seconds: float | None
    end: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data/prepared/glyphs"), help="the prepared data set"
    )
    data = PreparedDataset.open(parser.parse_args().data)
    make_deterministic(1)
    print(f"processor seconds to MAP@R {TARGET} on the test classes, one thread; {data.summary['protocol']}")
    print(f"{'setting':<66} {'epochs':>6} {'seconds':>8} {'ratio':>6} {'s an epoch':>10}  MAP@R at the end")
    first: float | None = None
    for name, config in configs().items():
        run, planned = train(data, config), config.train.epochs
        if run.epochs is None or run.seconds is None:
            print(f"{name:<66} not in {planned} epochs{'':>18}  {run.end:.3f}", flush=True)
            continue
        first = first or run.seconds
        each = run.seconds / run.epochs
        print(
            f"{name:<66} {run.epochs:>6} {run.seconds:>8.1f} {run.seconds / first:>6.2f} {each:>10.2f}  {run.end:.3f}",
            flush=True,
        )


def configs() -> dict[str, TrialConfig]:
    """Return the configs by the name of their setting; that of the default study is its first ResNet baseline."""
    found = {name: parse(TrialConfig, merge(COMMON, changes), name) for name, changes in SETTINGS.items()}
    cells = expand(load_study(PARAMS).sweep)
    wanted = {"backbone": "resnet", "loss": "multi_similarity", "variant": "baseline"}
    found[DEFAULT_STUDY] = next(
        cell.config for cell in cells if "role" not in cell.labels and wanted.items() <= cell.labels.items()
    )
    return found


def train(data: PreparedDataset, config: TrialConfig) -> Run:
    """Train as a trial does, validation included, and look at the test classes after each epoch."""
    with tempfile.TemporaryDirectory() as caches:
        trainer = Trainer(config, data, "train", torch.device("cpu"), Path(caches))
        seconds, reached, score = 0.0, None, 0.0
        for epoch in range(1, config.train.epochs + 1):
            start = time.process_time()
            trainer.train_epoch(epoch)
            evaluate(trainer.embed("validation"), data.split("validation").labels)
            seconds += time.process_time() - start
            score = float(evaluate(trainer.embed("test"), data.split("test").labels).metrics["map_at_r"])
            if reached is None and score >= TARGET:
                reached = epoch, seconds
    return Run(*(reached or (None, None)), score)


if __name__ == "__main__":
    main()
