"""`make bench`: every benchmark, as ratios within one run but for the page. Close other programs first.

python -m benchmarks
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys

BENCHMARKS = {
    "evaluate() against the bare matrix product": ["-m", "benchmarks.evaluate"],
    "the start of `dmlcore evaluate` against `import torch`": ["-m", "benchmarks.startup"],
    "`dmlcore plan` on 5,000 cells": ["-m", "benchmarks.plan"],
    "losses, forward + backward, against the bare product forward + backward": ["-m", "benchmarks.losses"],
    "training and evaluation input path against ImageFolder + DataLoader and decoding alone": [
        "-m",
        "benchmarks.input_path",
    ],
    "100 trials on a frozen trunk against 100 that fine-tune": ["-m", "benchmarks.frozen_trunk"],
    "the page of 24 and of 1,000 trials in Chromium": ["-m", "benchmarks.report_page"],
    "a prepared data set under DVC against files, preparing against decoding and encoding alone": [
        "-m",
        "benchmarks.prepared",
    ],
    "training with the allocator settings of a worker against glibc's defaults": [
        "-m",
        "benchmarks.allocator",
    ],
    "time to accuracy, before and after": ["-m", "benchmarks.time_to_accuracy"],
    "the sweep stage against plain loops of its trials": ["-m", "benchmarks.sweep"],
    "the sweep stage by the number of trials": ["-m", "benchmarks.sweep", "--counts", "10", "100", "1000"],
    "sleeping trials on 1 to 4 Ray nodes": ["-m", "benchmarks.nodes"],
    "from records to results": ["-m", "benchmarks.aggregate"],
    "epochs to MLflow": ["-m", "benchmarks.tracking"],
    "dvc repro without a change": ["-m", "benchmarks.no_change"],
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before the start")
    for title, arguments in BENCHMARKS.items():
        print(f"\n{title}", flush=True)
        subprocess.run([sys.executable, *arguments], check=True)


if __name__ == "__main__":
    main()
