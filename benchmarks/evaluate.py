"""evaluate() and calibrate() against the bare product of all embeddings, pytorch-metric-learning and faiss, in one run.

`python -m benchmarks.evaluate` prints a table; each time is a ratio to the product measured just before and just
after it, the median of the repeats; each memory is the growth of the peak resident size in a process of its own.
`--busy` is for a machine that other programs use: one thread, and processor time.
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

SHAPES = ((20_000, 512, 200), (60_502, 128, 11_316), (50_000, 128, 5_000))
ROWS = 1024
WHATS = ("product", "evaluate", "calibrate", "pml", "faiss")
FAISS_SKIP = "skipped: faiss is not installed (pip install faiss-cpu)"


def make_input(count: int, width: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised embeddings around random centres, sizes of the classes equal to within one, in random order."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(count) % classes)
    x = rng.standard_normal((classes, width), dtype=np.float32)[labels]
    x += rng.standard_normal(x.shape, dtype=np.float32)
    return torch.nn.functional.normalize(torch.from_numpy(x)), torch.from_numpy(labels)


def product(x: torch.Tensor, labels: torch.Tensor) -> None:
    """The whole matrix of similarities, 1,024 rows at a time into one buffer."""
    buffer = torch.empty(ROWS, len(x))
    for row in range(0, len(x), ROWS):
        rows = x[row : row + ROWS]
        torch.mm(rows, x.T, out=buffer[: len(rows)])


def ours(x: torch.Tensor, labels: torch.Tensor) -> None:
    """Every metric."""
    from dmlcore.metrics.evaluation import evaluate

    evaluate(x, labels)


def calibrate(x: torch.Tensor, labels: torch.Tensor) -> None:
    """A threshold for a FAR of 1 %, with the rates of each class and their intervals."""
    from dmlcore.calibration import Target
    from dmlcore.calibration import calibrate as calibrated

    calibrated((x, labels), None, Target("far", 0.01))


def pml(x: torch.Tensor, labels: torch.Tensor) -> None:
    """Two metrics."""
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    names = ("precision_at_1", "mean_average_precision_at_r")
    AccuracyCalculator(include=names, k="max_bin_count").get_accuracy(x, labels)


def faiss(x: torch.Tensor, labels: torch.Tensor) -> None:
    """The 10 nearest neighbours alone."""
    from faiss import IndexFlatIP, omp_set_num_threads

    omp_set_num_threads(torch.get_num_threads())
    index = IndexFlatIP(x.shape[1])
    index.add(x.numpy())
    index.search(x.numpy(), 10)


RUNNERS: dict[str, Callable[[torch.Tensor, torch.Tensor], None]] = {
    "product": product,
    "evaluate": ours,
    "calibrate": calibrate,
    "pml": pml,
    "faiss": faiss,
}


def have_faiss() -> bool:
    return importlib.util.find_spec("faiss") is not None


def seconds(what: str, x: torch.Tensor, labels: torch.Tensor) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    RUNNERS[what](x, labels)
    return clock() - start


def ratio(what: str, x: torch.Tensor, labels: torch.Tensor, repeats: int) -> tuple[float, float]:
    """Median seconds, and median ratio to the product before and after."""
    seconds(what, x[:3000], labels[:3000])  # compile, import
    times, ratios, before = [], [], seconds("product", x, labels)
    for _ in range(repeats):
        mine, after = seconds(what, x, labels), seconds("product", x, labels)
        times.append(mine)
        ratios.append(2 * mine / (before + after))
        before = after
    return statistics.median(times), statistics.median(ratios)


def peak_bytes() -> int:
    """Peak resident size of this process since `reset_peak` (Linux)."""
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def memory(what: str, shape: tuple[int, int, int]) -> int:
    """Growth of the peak over the input and a warm-up run, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.evaluate", "--memory-of", what, *map(str, shape)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_memory(what: str, count: int, width: int, classes: int) -> None:
    x, labels = make_input(count, width, classes)
    RUNNERS[what](x[:3000], labels[:3000])
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far no longer counts
    before = peak_bytes()
    RUNNERS[what](x, labels)
    print(peak_bytes() - before)


def rows(repeats: int = 3, shapes: Sequence[tuple[int, int, int]] = SHAPES) -> list[dict[str, object]]:
    """One row for each shape and runner."""
    table: list[dict[str, object]] = []
    for shape in shapes:
        x, labels = make_input(*shape)
        for what in WHATS:
            row: dict[str, object] = {
                "shape": f"{shape[0]:,} x {shape[1]}, {shape[2]:,} classes",
                "what": what,
            }
            if what in ("pml", "faiss") and not have_faiss():
                table.append(row | {"note": FAISS_SKIP})
                continue
            took, share = ratio(what, x, labels, repeats)
            extra = memory(what, shape) / 2**30
            table.append(row | {"seconds": took, "ratio": share, "extra_gib": extra})
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--count", type=int, help="the shape of so many rows alone")
    parser.add_argument("--memory-of", nargs=4, metavar=("WHAT", "N", "D", "C"))
    args = parser.parse_args()
    if args.memory_of:
        print_memory(args.memory_of[0], *map(int, args.memory_of[1:]))
        return
    if args.busy:
        torch.set_num_threads(1)
    clock = ", processor time" if args.busy else ""
    told = "ratio: to the bare product of the same shape; GiB: peak above the input"
    print(f"{torch.get_num_threads()} threads{clock}; {told}")
    print(f"{'shape':34}{'what':10}{'seconds':>9}{'ratio':>8}{'GiB':>7}")
    for row in rows(args.repeats, [shape for shape in SHAPES if args.count in (None, shape[0])]):
        end = row.get("note") or f"{row['seconds']:9.2f}{row['ratio']:8.2f}{row['extra_gib']:7.2f}"
        print(f"{row['shape']:34}{row['what']:10}{end}", flush=True)


if __name__ == "__main__":
    main()
