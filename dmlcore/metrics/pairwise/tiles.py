"""The grid of tiles, the threads that share it out, and the band of positives along the diagonal.

Every product is of at least 256 by 256: MKL rounds slim blocks differently, and equal pairs must get equal bits.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dmlcore.metrics.inputs import ROW_MULTIPLE, Pairs
from dmlcore.metrics.pairwise.kernels import RUN
from dmlcore.metrics.pairwise.order_statistics import HIGH_BINS
from dmlcore.metrics.pairwise.simd import LANES

HEIGHT, WIDTH = 512, 1024  # 2 MiB of similarities: what one core's second-level cache holds
Floats = NDArray[np.float32]
Window = tuple[int, int, int, int, int, int]  # see kernels.py
Kept = tuple[
    Floats, NDArray[np.uint16], NDArray[np.int64]
]  # value, column in the tile, where each row starts


class Tile(NamedTuple):
    """Rows row..stop-1, columns col..end-1."""

    row: int
    stop: int
    col: int
    end: int


class Worker:
    """One thread's own buffers, and the locks on the tile columns that all share."""

    def __init__(self, locks: list[Lock]) -> None:
        self.locks = locks
        self.block = torch.empty(HEIGHT * WIDTH)
        self.histogram = np.zeros(HIGH_BINS, dtype=np.int64)
        self.scratch = (
            np.empty(WIDTH + LANES, np.float32),  # found: one run's candidates
            np.empty(WIDTH + LANES, np.int32),  # their columns
            np.empty(HEIGHT * WIDTH + 1, np.uint64),  # packed: the tile's values from the floor up
            np.empty(HEIGHT * (WIDTH // RUN) + 1, np.int32),  # where each run's begin
            np.empty(WIDTH, np.float32),  # bars of the columns
        )
        self.step = np.empty(HEIGHT * WIDTH, dtype=np.int32)
        self.tables: dict[str, NDArray[Any]] = {}

    def multiply(self, pairs: Pairs, tile: Tile) -> tuple[Floats, Window]:
        """The tile's similarities, in this thread's buffer, and where in them the tile is."""
        return product(pairs, tile, self.block)

    def columns(self, tile: Tile) -> AbstractContextManager[bool]:
        """Sole right to count for the tile's columns; its rows are this thread's own."""
        return self.locks[tile.col // WIDTH]

    def table(self, name: str, shape: tuple[int, ...], kind: type = np.int64) -> NDArray[Any]:
        """Counts of this thread's own."""
        if name not in self.tables:
            self.tables[name] = np.zeros(shape, dtype=kind)
        return self.tables[name]


def product(pairs: Pairs, tile: Tile, buffer: torch.Tensor | None = None) -> tuple[Floats, Window]:
    """Similarities that hold the tile, from a product of at least 256 by 256, and the tile's window in them."""
    row = min(tile.row, len(pairs.rows) - ROW_MULTIPLE)
    col = min(tile.col, len(pairs.cols) - ROW_MULTIPLE)
    rows = pairs.rows[row : max(tile.stop, row + ROW_MULTIPLE)]
    cols = pairs.cols[col : max(tile.end, col + ROW_MULTIPLE)]
    out = None if buffer is None else buffer[: len(rows) * len(cols)].view(len(rows), len(cols))
    return torch.mm(rows, cols.T, out=out).numpy(), (*tile, row, col)


def bands(pairs: Pairs, first: int, last: int) -> Iterator[tuple[Floats, Window]]:
    """Blocks that hold all positives of queries first..last-1, and their windows."""
    start, end = pairs.own_start, pairs.own_end
    for row in range(first, last, ROW_MULTIPLE):
        stop = min(row + ROW_MULTIPLE, last)
        for col in range(int(start[row]), int(end[stop - 1]), 8 * WIDTH):
            yield product(pairs, Tile(row, stop, col, min(col + 8 * WIDTH, int(end[stop - 1]))))


@contextmanager
def one_thread() -> Iterator[None]:
    """Products on the calling thread alone: on a busy machine a barrier waits for a thread that does not run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def walk(
    pairs: Pairs,
    threads: int,
    triangle: bool,
    visit: Callable[[Worker, Tile], None],
    first: int = 0,
    last: int | None = None,
) -> list[Worker]:
    """Visit the tiles of rows first..last-1, strip by strip, on so many threads; returns the workers.

    `triangle`: leave out the tiles under the diagonal. A strip's rows belong to one thread, start to end.
    """
    last = len(pairs.row_class) if last is None else last
    strips = [(row, min(row + HEIGHT, last)) for row in range(first, last, HEIGHT)]
    strips.reverse()
    locks = [Lock() for _ in range(len(pairs.cols) // WIDTH + 1)]
    workers = [Worker(locks) for _ in range(max(1, min(threads, len(strips))))]

    def work(worker: Worker) -> None:
        while strips:
            try:
                row, stop = strips.pop()
            except IndexError:  # another thread took the last one in between
                return
            for tile in _strip(pairs, row, stop, triangle):
                visit(worker, tile)

    _run(work, workers)
    return workers


def _strip(pairs: Pairs, row: int, stop: int, triangle: bool) -> Iterator[Tile]:
    width = len(pairs.col_class)
    for col in range(row // WIDTH * WIDTH if triangle else 0, width, WIDTH):
        yield Tile(row, stop, col, min(col + WIDTH, width))


def _run(work: Callable[[Worker], None], workers: list[Worker]) -> None:
    if len(workers) == 1:
        work(workers[0])
        return

    def alone(worker: Worker) -> None:
        torch.set_num_threads(1)  # a thread multiplies its tile alone: no barrier between product and walk
        with torch.inference_mode():
            work(worker)

    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(alone, workers))
