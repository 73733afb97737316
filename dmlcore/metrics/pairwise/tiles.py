"""The grid of tiles, the threads that share it, and the band of positives along the diagonal.

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

from dmlcore.metrics.inputs import ROW_MULTIPLE, Ints, Pairs
from dmlcore.metrics.pairwise.order_statistics import HIGH_BINS

# 2 MiB of similarities: what one core's second-level cache holds, so that a tile is written and read without memory.
# The grid never depends on memory or threads: the same products give the same bits.
HEIGHT, WIDTH = 512, 1024
RUN_WIDTH = 256  # columns that eight bits tell apart
LANES = 16  # floats that AVX-512 compares at a time
Floats = NDArray[np.float32]


class PositiveChunk(NamedTuple):
    """`similarity [P]` on the device, `row [P]` and `col [P]` on the host, row by row: P ordered positive pairs."""

    similarity: torch.Tensor
    row: Ints
    col: Ints


class Tile(NamedTuple):
    """Rows row..stop-1, columns col..end-1."""

    row: int
    stop: int
    col: int
    end: int


class TileBounds(NamedTuple):
    """A tile within a block of similarities: element (i, j) is block[i - block_row, j - block_col]."""

    row: int
    stop: int
    col: int
    end: int
    block_row: int
    block_col: int


class ColumnRange(NamedTuple):
    """Columns start[i]..end[i]-1 of each row i, [Q] both."""

    start: NDArray[np.int64]
    end: NDArray[np.int64]


class PackedTile(NamedTuple):
    """The similarities of a tile that reach the cutoff, and where those of each run of 256 columns begin.

    A packed similarity is (key - cutoff key) << 8 | column within its run.
    """

    packed: NDArray[np.unsignedinteger]
    run_start: NDArray[np.int32]

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes + self.run_start.nbytes


class ScanBuffers(NamedTuple):
    """What scan_tile writes into: one thread's own, so that no tile allocates.

    `values`, `columns`: one run's candidates; `packed`, `run_start`: as in PackedTile; `col_thresholds [WIDTH]`.
    """

    values: Floats
    columns: NDArray[np.int32]
    packed: NDArray[np.uint64]
    run_start: NDArray[np.int32]
    col_thresholds: Floats


class Worker:
    """One thread's own buffers, and the locks on the tile columns that all threads share."""

    def __init__(self, locks: list[Lock]) -> None:
        self.locks = locks
        self.block = torch.empty(HEIGHT * WIDTH)
        self.histogram = np.zeros(HIGH_BINS, dtype=np.int64)
        self.buffers = ScanBuffers(
            np.empty(WIDTH + LANES, np.float32),  # LANES more: a wide store writes past the last candidate
            np.empty(WIDTH + LANES, np.int32),
            np.empty(HEIGHT * WIDTH + 1, np.uint64),
            np.empty(HEIGHT * (WIDTH // RUN_WIDTH) + 1, np.int32),
            np.empty(WIDTH, np.float32),
        )
        self.first_cut = np.empty(HEIGHT * WIDTH, dtype=np.int32)
        self.tables: dict[str, NDArray[Any]] = {}

    def multiply(self, pairs: Pairs, tile: Tile) -> tuple[Floats, TileBounds]:
        """Compute the tile's similarities into this thread's buffer."""
        block, bounds = multiply_tile(pairs, tile, self.block)
        return block.numpy(), bounds

    def column_lock(self, tile: Tile) -> AbstractContextManager[bool]:
        """Return the sole right to count for the tile's columns; its rows are this thread's own."""
        return self.locks[tile.col // WIDTH]

    def table(self, name: str, shape: tuple[int, ...], kind: type = np.int64) -> NDArray[Any]:
        """Return counts of this thread's own, zeros at the first call."""
        if name not in self.tables:
            self.tables[name] = np.zeros(shape, dtype=kind)
        return self.tables[name]


def multiply_tile(
    pairs: Pairs, tile: Tile, buffer: torch.Tensor | None = None
) -> tuple[torch.Tensor, TileBounds]:
    """Return similarities that hold the tile, of at least 256 by 256, and the tile's bounds in them.

    Identical rows have exactly 1. Others may be above it by rounding: who reads them takes 1 instead.
    """
    row = min(tile.row, len(pairs.rows) - ROW_MULTIPLE)
    col = min(tile.col, len(pairs.cols) - ROW_MULTIPLE)
    rows = pairs.rows[row : max(tile.stop, row + ROW_MULTIPLE)]
    cols = pairs.cols[col : max(tile.end, col + ROW_MULTIPLE)]
    out = None if buffer is None else buffer[: len(rows) * len(cols)].view(len(rows), len(cols))
    block = torch.mm(rows, cols.T, out=out)
    _set_identical(pairs, block, row, col)
    return block, TileBounds(*tile, row, col)


def _set_identical(pairs: Pairs, block: torch.Tensor, row: int, col: int) -> None:
    """Set the similarity of identical rows: products of float32 give 0.9999998 to 1.0000002, as the rows happen to be.

    Only images that have a double are looked at, so that a set without any costs two searches a tile.
    """
    if not len(pairs.repeated[0]):
        return
    rows, cols = (
        found[np.searchsorted(found, first) : np.searchsorted(found, first + size)]
        for found, first, size in zip(pairs.repeated, (row, col), block.shape, strict=True)
    )
    if len(rows) and len(cols):
        i, j = np.nonzero(pairs.row_key[rows][:, None] == pairs.col_key[cols])
        at = torch.from_numpy(np.stack([rows[i] - row, cols[j] - col])).to(block.device)
        block[at[0], at[1]] = 1.0


def diagonal_bands(
    pairs: Pairs, first: int, last: int, width: int = 8 * WIDTH
) -> Iterator[tuple[torch.Tensor, TileBounds]]:
    """Yield blocks that hold all positives of queries first..last-1; classes are sorted, so few rows share them."""
    start, end = pairs.own_start, pairs.own_end
    for row in range(first, last, ROW_MULTIPLE):
        stop = min(row + ROW_MULTIPLE, last)
        right = int(end[stop - 1])
        for col in range(int(start[row]), right, width):
            yield multiply_tile(pairs, Tile(row, stop, col, min(col + width, right)))


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep products on the calling thread: on a busy machine a barrier waits for a thread that does not run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def visit_tiles(
    pairs: Pairs,
    threads: int,
    triangle: bool,
    visit: Callable[[Worker, Tile], None],
    first: int = 0,
    last: int | None = None,
) -> list[Worker]:
    """Visit the tiles of rows first..last-1, strip by strip, on so many threads; return the workers.

    `triangle`: leave out the tiles under the diagonal. One thread takes all of a strip, so that what is counted by row
    needs no lock; what is counted by column does.
    """
    last = len(pairs.row_class) if last is None else last
    strips = [(row, min(row + HEIGHT, last)) for row in range(first, last, HEIGHT)]
    strips.reverse()  # the first strips of a triangle are the longest: start with them
    locks = [Lock() for _ in range(len(pairs.cols) // WIDTH + 1)]
    workers = [Worker(locks) for _ in range(max(1, min(threads, len(strips))))]

    def work(worker: Worker) -> None:
        while strips:
            try:
                row, stop = strips.pop()
            except IndexError:  # another thread took the last one in between
                return
            width = len(pairs.col_class)
            for col in range(row // WIDTH * WIDTH if triangle else 0, width, WIDTH):
                visit(worker, Tile(row, stop, col, min(col + WIDTH, width)))

    def work_alone(worker: Worker) -> None:
        torch.set_num_threads(1)  # a thread multiplies its tile alone: no barrier between product and scan
        with torch.inference_mode():
            work(worker)

    if len(workers) == 1:
        work(workers[0])
    else:
        with ThreadPoolExecutor(len(workers)) as pool:
            list(pool.map(work_alone, workers))
    return workers


def upper_triangle(chunk: PositiveChunk) -> PositiveChunk:
    """Keep the pairs above the diagonal."""
    keep = chunk.row < chunk.col
    index = torch.from_numpy(np.flatnonzero(keep)).to(chunk.similarity.device)
    return PositiveChunk(chunk.similarity[index], chunk.row[keep], chunk.col[keep])
