"""Run a function on several processes that talk over gloo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing


def on_ranks(function: Callable[..., Any], world_size: int, folder: Path, *arguments: Any) -> list[Any]:
    """Return the results, tensors and lists of them, of `function(rank, world_size, *arguments)` on each rank."""
    # The server imports the function's module once; a fork of this process could meet its threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    multiprocessing.start_processes(
        _rank, (function, world_size, folder, arguments), nprocs=world_size, start_method="forkserver"
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world_size)]


def _rank(
    rank: int, function: Callable[..., Any], world_size: int, folder: Path, arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=world_size
    )
    try:
        torch.save(function(rank, world_size, *arguments), folder / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()
