"""Losses against the bare matrix product: forward + backward, time and memory, next to pytorch-metric-learning.

Every row's times come from one process, in turns with x x^T forward + backward of the same shape; each loss has a
process of its own, so that its peak memory is its own. D = 512, classes of 4 images.

    python benchmarks/losses.py
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dmlcore.losses import build_loss, build_regularizer

SIZES = (128, 512, 2048, 4000)
WIDTH = 512
IMAGES_PER_CLASS = 4
SECONDS_LIMIT = 60.0
BYTES_LIMIT = 8 * 2**30
EUCLIDEAN = {"name": "LpDistance", "normalize_embeddings": False}
COSINE_MARGINS = {"pos_margin": 0.9, "neg_margin": 0.5, "distance": {"name": "CosineSimilarity"}}
# Ours -> the loss of pytorch-metric-learning with its arguments; None: it has none, a loop over queries replaces it.
LOSSES: dict[str, tuple[str, dict[str, Any]] | None] = {
    "tcm": (
        "ContrastiveLoss",
        COSINE_MARGINS,
    ),  # the same value; their ThresholdConsistentMarginLoss is slower
    "smooth_ap": ("SmoothAPLoss", {}),
    "recall_at_k": None,
    "multi_similarity": ("MultiSimilarityLoss", {"miner": {"name": "MultiSimilarityMiner"}}),
    "contrastive": ("ContrastiveLoss", {}),
    "lifted_structure": ("LiftedStructureLoss", {"distance": EUCLIDEAN}),
    "proxy_anchor": ("ProxyAnchorLoss", {}),
}


@dataclass(frozen=True)
class Row:
    """One loss at one batch size; `ratio` is to the bare product, None where it was not run, for `reason`."""

    loss: str
    implementation: str
    batch_size: int
    product_seconds: float | None = None
    ratio: float | None = None
    peak_extra_bytes: int | None = None
    reason: str = ""

    @property
    def seconds(self) -> float:
        return (self.ratio or 0.0) * (self.product_seconds or 0.0)


def rows(sizes: tuple[int, ...] = SIZES, *, threads: int | None = None) -> Iterator[Row]:
    """Each loss at each size, ours and the other implementation, as they are measured."""
    for loss in LOSSES:
        for implementation in ("ours", "other"):
            command = [sys.executable, str(Path(__file__).resolve()), "--child", loss, implementation]
            command += ["--sizes", *map(str, sizes), "--threads", str(threads or torch.get_num_threads())]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
                assert child.stdout is not None
                for line in child.stdout:
                    yield Row(**json.loads(line))
            if child.returncode:
                raise RuntimeError(f"benchmark of {loss} ({implementation}) ended with {child.returncode}")


def main() -> None:
    """Print one table: a line a loss and batch size."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    if arguments.child:
        for row in _child_rows(*arguments.child, arguments.sizes):
            print(json.dumps(asdict(row)), flush=True)
        return
    print(f"forward + backward, D {WIDTH}, {IMAGES_PER_CLASS} images a class, {arguments.threads} thread(s)")
    print("ratio: to x x^T forward + backward in the same process; MiB: peak beyond what lay there before")
    print(
        f"{'loss':18}{'B':>6}{'product ms':>12}{'ratio':>8}{'MiB':>7}  pytorch-metric-learning (recall_at_k: naive)"
    )
    ours: dict[tuple[str, int], Row] = {}
    for row in rows(tuple(arguments.sizes), threads=arguments.threads):
        if row.implementation == "ours":
            ours[row.loss, row.batch_size] = row
        else:
            print(_line(ours[row.loss, row.batch_size], row), flush=True)


def _line(ours: Row, other: Row) -> str:
    assert ours.product_seconds is not None
    assert ours.peak_extra_bytes is not None
    text = f"{ours.loss:18}{ours.batch_size:6}{ours.product_seconds * 1e3:12.2f}{ours.ratio:8.2f}"
    text += f"{ours.peak_extra_bytes / 2**20:7.0f}  "
    if other.peak_extra_bytes is None:
        return text + f"not run: {other.reason}"
    return text + f"{other.ratio:8.2f} times, {other.peak_extra_bytes / 2**20:.0f} MiB"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="batch sizes, rising")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of torch")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def _child_rows(loss: str, implementation: str, sizes: list[int]) -> Iterator[Row]:
    warnings.simplefilter("ignore")
    done: list[Row] = []
    refusal = ""
    _measure(
        _build(loss, implementation, 8), loss, implementation, 8
    )  # loads libraries, so that they count for nothing
    if implementation == "other":
        address_space = _status("VmSize") + BYTES_LIMIT
        resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    for size in sizes:
        reason = refusal or (_forecast(done, size) if implementation == "other" else "")
        if not reason:
            try:
                done.append(_measure(_build(loss, implementation, size), loss, implementation, size))
                yield done[-1]
                continue
            except (MemoryError, RuntimeError) as error:
                if "memory" not in str(error):
                    raise
                reason = refusal = f"needs more than {BYTES_LIMIT / 2**30:.0f} GiB"
        yield Row(loss, implementation, size, reason=reason)


def _build(loss: str, implementation: str, size: int) -> Callable[[Tensor, Tensor], Tensor]:
    torch.manual_seed(0)
    sizes = {"num_classes": size // IMAGES_PER_CLASS, "embedding_dim": WIDTH}
    if implementation == "ours":
        return build_regularizer(loss, **sizes) if loss == "tcm" else build_loss(loss, **sizes)
    theirs = LOSSES[loss]
    return naive_recall_at_k if theirs is None else build_loss(f"pml:{theirs[0]}", **sizes, **theirs[1])


def naive_recall_at_k(embeddings: Tensor, labels: Tensor) -> Tensor:
    """RS@k as the authors write it, one query after the other under autograd."""
    vectors = nn.functional.normalize(embeddings)
    ks = torch.tensor([1, 2, 4, 8, 16])
    terms = []
    for q in range(len(labels)):
        similarities = vectors @ vectors[q]
        positives = ((labels == labels[q]) & (torch.arange(len(labels)) != q)).nonzero().squeeze(1)
        ahead = torch.sigmoid((similarities - similarities[positives].unsqueeze(1)) / 0.01)
        ranks = 0.5 + ahead.sum(dim=1)
        hits = torch.sigmoid(ks - ranks.unsqueeze(1)).sum(dim=0)
        terms.append((hits.minimum(ks) / ks.clamp(max=len(positives))).mean())
    return 1 - torch.stack(terms).mean()


def _measure(loss: Callable[[Tensor, Tensor], Tensor], name: str, implementation: str, size: int) -> Row:
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(size, WIDTH, generator=generator, requires_grad=True)
    labels = (torch.arange(size) // IMAGES_PER_CLASS)[torch.randperm(size, generator=generator)]
    before = _status("VmRSS")
    first = _seconds(lambda: loss(embeddings, labels).backward())
    peak = max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before, 0)
    upstream = torch.ones(size, size)
    product_times, loss_times = [], [first]
    product_times.append(_seconds(lambda: (embeddings @ embeddings.T).backward(upstream)))
    for _ in range(_repeats(first)):
        product_times.append(_seconds(lambda: (embeddings @ embeddings.T).backward(upstream)))
        loss_times.append(_seconds(lambda: loss(embeddings, labels).backward()))
    # The fastest of each: another process on the machine can only add time.
    product = min(product_times)
    return Row(name, implementation, size, product, min(loss_times) / product, peak)


def _repeats(seconds: float) -> int:
    return max(1, min(30, int(4 / seconds))) if seconds < 20 else 0


def _forecast(done: list[Row], size: int) -> str:
    """Why a size is not run, from the growth between the two sizes before it (as B^2 where there is but one)."""
    if not done:
        return ""
    last = done[-1]
    for what, get, limit, unit in (
        ("s", lambda row: row.seconds, SECONDS_LIMIT, 1.0),
        ("GiB", lambda row: float(row.peak_extra_bytes or 1), float(BYTES_LIMIT), 2.0**30),
    ):
        growth = 4.0
        if len(done) > 1:
            growth = (get(last) / get(done[-2])) ** (1 / _doublings(done[-2].batch_size, last.batch_size))
        forecast = get(last) * growth ** _doublings(last.batch_size, size)
        if forecast > limit:
            return f"would need about {forecast / unit:.0f} {what}, the limit is {limit / unit:.0f}"
    return ""


def _doublings(small: int, large: int) -> float:
    return math.log2(large / small)


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _status(field: str) -> int:
    """Bytes, of a field of /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
