"""How long `dmlcore evaluate` takes to start: fresh processes, cold and warm, beside `import torch` alone.

`python -m benchmarks.startup` prints a table: medians of the repeats, the processes one after another; the ratio is of
processor times, to `import torch`. Cold: an empty folder for what numba compiles.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROWS = (600, 2000)
"""Few images are counted without numba; more need its kernels."""


def processes(folder: Path) -> dict[str, list[str]]:
    """Name -> the arguments of Python."""
    found = {
        "import torch": ["-c", "import torch"],
        "import torch, dmlcore": ["-c", "import torch, dmlcore"],
    }
    for count in ROWS:
        rng = np.random.default_rng(0)
        labels = np.arange(count) % (count // 10)
        x = rng.standard_normal((count // 10, 128))[labels] + rng.standard_normal((count, 128))
        np.save(folder / f"{count}.npy", x.astype(np.float32))
        np.save(folder / f"{count}_labels.npy", labels)
        files = [f"--embeddings={folder / f'{count}.npy'}", f"--labels={folder / f'{count}_labels.npy'}"]
        code = f"from dmlcore.cli import app; app(['evaluate', *{files}])"
        found |= {f"evaluate {count} rows, {state}": ["-c", code] for state in ("cold", "warm")}
    return found


def measure(arguments: list[str], cache: Path) -> tuple[float, float]:
    """Run Python; return its seconds, and those of its processor time."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)
    took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def medians(runs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the median seconds and the median processor time of some runs."""
    seconds, processor = (statistics.median(column) for column in zip(*runs, strict=True))
    return seconds, processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name), Path(name) / "cache"
        runs = processes(folder)
        times: dict[str, list[tuple[float, float]]] = {what: [] for what in runs}
        measure(["-c", "import dmlcore.cli, torch"], cache)  # the files from the disk
        for _ in range(repeats):
            for what, arguments in runs.items():
                if what.endswith("cold"):
                    shutil.rmtree(cache, ignore_errors=True)
                times[what].append(measure(arguments, cache))
    base = medians(times["import torch"])[1]
    print(f"{'':28}{'seconds':>9}{'processor':>11}{'/ torch':>9}")
    for what, found in times.items():
        took, cpu = medians(found)
        print(f"{what:28}{took:9.2f}{cpu:11.2f}{cpu / base:9.2f}")


if __name__ == "__main__":
    main()
