"""A function over many items on all cores, in order and in bounded memory, with its progress shown."""

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


TASK = 16
"""Items a task: handing over one by one costs 30 us each, more than drawing a small image."""


LINE_SECONDS = 10.0


def all_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def ordered_map(function: Callable[[In], Out], items: Iterable[In], workers: int) -> Iterator[Out]:
    """`map(function, items)` over threads; at most 4 tasks a worker are under way or wait to be taken.

    Threads suffice where the work releases Python's lock, as Pillow's decoders, resizing and encoders do.
    """
    rest = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="pack")
    waiting: deque[Future[list[Out]]] = deque()
    try:
        while task := list(islice(rest, TASK)):
            waiting.append(pool.submit(_apply, function, task))
            if len(waiting) >= 4 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def shown(results: Iterable[Out], title: str, *, done: int, total: int) -> Iterator[Out]:
    """`results` with a progress bar on stderr; without a terminal, a line every 10 s.

    Args:
        results: what is counted.
        title: what is done.
        done: how many of `total` an earlier run has done.
        total: how many there are.
    """
    console = Console(stderr=True)
    return (
        _bar(results, title, done, total, console)
        if console.is_terminal
        else _lines(results, title, done, total)
    )


def _apply(function: Callable[[In], Out], items: list[In]) -> list[Out]:
    return [function(item) for item in items]


def _bar(results: Iterable[Out], title: str, done: int, total: int, console: Console) -> Iterator[Out]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, completed=done, total=total)
        for result in results:
            yield result
            progress.advance(task)


def _lines(results: Iterable[Out], title: str, done: int, total: int) -> Iterator[Out]:
    start = last = time.monotonic()
    for count, result in enumerate(results, start=1):
        yield result
        now = time.monotonic()
        if now - last >= LINE_SECONDS:
            rate = count / (now - start)
            print(f"{title}: {done + count:,} of {total:,}, {rate:,.0f}/s", file=sys.stderr, flush=True)
            last = now
