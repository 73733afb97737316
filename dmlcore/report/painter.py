"""Pictures drawn in a second process while the tables and the page are made: worth it where a study is large."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from matplotlib.figure import Figure

from dmlcore.config import FigureConfig
from dmlcore.report.figures import png_bytes

LARGE = 2_000
"""Trials from which on a second process saves more seconds than its start takes."""

Drawing = Callable[[], bytes]
"""Gives the PNG, when it is done."""


@contextmanager
def painter(trials: int) -> Iterator[Callable[[Figure, FigureConfig], Drawing]]:
    """What begins to draw a figure, and gives what waits for it; the same bytes as `png_bytes`.

    Args:
        trials: of the study; below LARGE a figure is drawn at once, in this process.
    """
    if trials < LARGE:
        yield _drawn_here
        return
    spawn = multiprocessing.get_context(
        "spawn"
    )  # a fork would take polars' threads along in the middle of their work
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        pool.submit(int)  # so that it starts while the first figure is built
        yield lambda figure, config: pool.submit(png_bytes, figure, config).result


def _drawn_here(figure: Figure, config: FigureConfig) -> Drawing:
    content = png_bytes(figure, config)
    return lambda: content
