"""A trial's training with glibc's settings of a worker (dmlcore/sweep/ray/allocator.py) against glibc's defaults.

`python -m benchmarks.allocator` prints a table: processor seconds of an epoch on one thread, how many of them in the
kernel, page faults and the largest memory of the process, and the seconds as a ratio to the defaults. The network of
the default study (data set glyphs, prepared by `make repro`) and EfficientNet-Lite0 fine-tuned on generated pictures of
96 pixels. As many at once as the machine has cores, as in a sweep: they share the kernel. Both ways in turn; medians.
It fails if the embeddings that a network ends with differ by a bit between any two of its runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import torch

from benchmarks.frozen_trunk import pictures
from benchmarks.time_to_accuracy import DEFAULT_STUDY, configs
from dmlcore.config.base import parse
from dmlcore.config.trial import TrialConfig
from dmlcore.data.dataset import PreparedDataset
from dmlcore.sweep.ray.allocator import KEEP_FREED_MEMORY
from dmlcore.training.run import make_deterministic
from dmlcore.training.trainer import Trainer

GLYPHS = Path("data/prepared/glyphs")
EFFICIENTNET: dict[str, Any] = {
    "dataset": "pictures",
    "input": {"size": 96},
    "loss": {"name": "multi_similarity"},
    "model": {"backbone": {"name": "tf_efficientnet_lite0"}, "channels_last": True, "embedding_dim": 128},
    "train": {"epochs": 3, "batch_size": 40, "batches_per_epoch": 10},
    "threads": 1,
}
NETWORKS = ("resnet of the default study, 32 px", "EfficientNet-Lite0 fine-tuned, 96 px")
MEASURED = 2
"""Epochs that are timed, after one that is not."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=os.cpu_count())
    parser.add_argument("--train", type=int, choices=range(len(NETWORKS)), help="train one, here: internal")
    arguments = parser.parse_args()
    if arguments.train is not None:
        print(json.dumps(in_a_thread(arguments.train)))
        return
    defaults = {name: value for name, value in os.environ.items() if name not in KEEP_FREED_MEMORY}
    ways = {"glibc's defaults": defaults, "freed memory kept": defaults | KEEP_FREED_MEMORY}
    print(f"{'network':<40} {'way':<18} {'s an epoch':>10} {'kernel':>7} {'faults':>9} {'MiB':>6} ratio")
    for number, network in enumerate(NETWORKS):
        found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        for _ in range(arguments.repeats):
            for way, environment in ways.items():
                found[way] += trained(number, environment, arguments.at_once)
        if len({run.pop("embeddings") for runs in found.values() for run in runs}) > 1:
            sys.exit(f"allocator: {network}: embeddings differ between runs")
        first = statistics.median(run["seconds"] for run in next(iter(found.values())))
        for way, runs in found.items():
            middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            print(
                f"{network:<40} {way:<18} {middle['seconds']:>10.2f} {middle['kernel']:>7.2f} "
                f"{middle['faults']:>9,.0f} {middle['memory']:>6.0f} {middle['seconds'] / first:>5.2f}",
                flush=True,
            )
    print("the embeddings of all runs of a network are the same to the bit")


def trained(number: int, environment: dict[str, str], at_once: int) -> list[dict[str, Any]]:
    """Train a network in processes of its own."""
    command = [sys.executable, "-m", "benchmarks.allocator", "--train", str(number)]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(at_once)
    ]
    outputs = [process.communicate()[0] for process in running]
    if failed := [process.returncode for process in running if process.returncode]:
        sys.exit(f"allocator: {len(failed)} of {at_once} processes failed")
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def in_a_thread(number: int) -> dict[str, Any]:
    """Measure in another thread than the first, as Ray runs a trial: glibc gives it a heap of its own."""
    found: dict[str, Any] = {}
    thread = threading.Thread(target=lambda: found.update(measure(number)))
    thread.start()
    thread.join()
    return found


def measure(number: int) -> dict[str, Any]:
    """Train an epoch, then time `MEASURED` more."""
    make_deterministic(1)
    with tempfile.TemporaryDirectory() as folder:
        if number == 0:
            config, data = configs()[DEFAULT_STUDY], PreparedDataset.open(GLYPHS)
        else:
            config, data = (
                parse(TrialConfig, EFFICIENTNET, "benchmark"),
                pictures(Path(folder) / "data", side=112),
            )
        trainer = Trainer(config, data, "train", torch.device("cpu"), Path(folder))
        trainer.train_epoch(1)
        before = resource.getrusage(resource.RUSAGE_SELF)
        for epoch in range(2, 2 + MEASURED):
            trainer.train_epoch(epoch)
        after = resource.getrusage(resource.RUSAGE_SELF)
        embeddings = trainer.embed("validation").numpy().tobytes()
    kernel = after.ru_stime - before.ru_stime
    return {
        "seconds": (after.ru_utime - before.ru_utime + kernel) / MEASURED,
        "kernel": kernel / MEASURED,
        "faults": (after.ru_minflt - before.ru_minflt) / MEASURED,
        "memory": after.ru_maxrss / 1024,
        "embeddings": hashlib.sha256(embeddings).hexdigest(),
    }


if __name__ == "__main__":
    main()
