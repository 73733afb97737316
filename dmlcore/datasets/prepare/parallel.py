"""A function over many items on all cores, in order and in bounded memory, and its progress."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

In = TypeVar("In")
Out = TypeVar("Out")

CHUNK = 16
"""Items a task: handing over one by one costs 30 us each, more than drawing a small image."""

LINE_SECONDS = 10.0


def all_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


# No library of ours does this: joblib 1.6 with `return_as="generator"` reads all of `items` however slowly the results
# are taken, which for a million photographs fills the memory; `Executor.map(buffersize=...)` needs Python 3.14.
def ordered_map(function: Callable[[In], Out], items: Iterable[In], workers: int) -> Iterator[Out]:
    """Yield `function(item)` for each item, in order, computed by threads; at most 4 chunks a worker are in flight.

    Threads suffice where the work releases Python's lock, as Pillow's decoders, resizing and encoders do.
    """
    rest = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="encode")
    waiting: deque[Future[list[Out]]] = deque()
    try:
        while chunk := list(islice(rest, CHUNK)):
            waiting.append(pool.submit(lambda items: [function(item) for item in items], chunk))
            if len(waiting) >= 4 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        # Also when the consumer stops or a chunk raised: no thread outlives the iteration.
        pool.shutdown(cancel_futures=True)


def with_progress(results: Iterable[Out], title: str, *, done: int, total: int) -> Iterator[Out]:
    """Yield `results` and show a progress bar on stderr; without a terminal, a line every 10 s.

    Args:
        results: what is counted.
        title: what is done.
        done: how many of `total` an earlier run has done.
        total: how many there are.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from _with_lines(results, title, done, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, completed=done, total=total)
        for result in results:
            yield result
            progress.advance(task)


def _with_lines(results: Iterable[Out], title: str, done: int, total: int) -> Iterator[Out]:
    start = last = time.monotonic()
    for count, result in enumerate(results, start=1):
        yield result
        now = time.monotonic()
        if now - last >= LINE_SECONDS:
            rate = count / (now - start)
            print(f"{title}: {done + count:,} of {total:,}, {rate:,.0f}/s", file=sys.stderr, flush=True)
            last = now
