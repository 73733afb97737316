"""The check of benchmarks.gpu on losses: gradients against the CPU's, time beside pytorch-metric-learning's."""

from __future__ import annotations

import copy
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu import Context, Row
from benchmarks.losses import LOSSES as OTHERS
from dmlcore.losses import LOSSES, build_loss, build_regularizer


def losses(context: Context) -> Iterator[Row]:
    """Forward and backward of each loss, its gradient against the CPU's, and pytorch-metric-learning's."""
    size, width = context.size(4000, 64), context.size(512, 32)
    ours: dict[str, float] = {}
    for name in (*LOSSES, "tcm"):
        apart = _gradient_difference(context, name)
        yield Row(f"{name}: gradient, device - CPU, relative", apart, "", "1e-4", apart <= 1.0e-4)
        try:
            ours[name] = _loss_seconds(context, name, {}, size, width)
        except torch.OutOfMemoryError as error:
            yield Row(f"{name}, {size} x {width}", note=str(error)[:200], ok=False)
            continue
        yield Row(f"{name}, {size} x {width}", ours[name] * 1e3, "ms")
    for name, (seconds, reason) in _others(context, size, width).items():
        title = f"{name}, {size} x {width}: pytorch-metric-learning"
        if seconds is None or name not in ours:
            yield Row(title, note=f"not run: {reason}")
        else:
            yield Row(title, seconds * 1e3, "ms", note=f"{seconds / ours[name]:.1f} times ours")


CUBIC = ("smooth_ap", "recall_at_k")
"""Losses whose other implementation takes B^3 numbers: 256 GB of float32 for 4,000 images."""
OTHERS_LIMIT = 40.0
Found = dict[str, tuple[float | None, str]]


def _others(context: Context, size: int, width: int) -> Found:
    """Loss -> seconds of the other implementation, or why there are none.

    They run in a process of their own: where one is killed for its memory, another process goes on with the rest.
    """
    found: Found = {name: (None, "B^3 numbers") for name in CUBIC if OTHERS[name]}
    waiting = [name for name, other in OTHERS.items() if other and name not in CUBIC]
    path = context.folder / "others"
    deadline = time.monotonic() + OTHERS_LIMIT
    processes = multiprocessing.get_context("spawn")
    while waiting and (left := deadline - time.monotonic()) > 1.0:
        path.write_text("")
        child = processes.Process(target=_measure, args=(context, waiting, size, width, path))
        child.start()
        child.join(left)
        if timed_out := child.is_alive():
            child.kill()
            child.join()
        found |= {name: (seconds, reason) for name, seconds, reason in _json_lines(path)}
        waiting = [name for name in waiting if name not in found]
        if waiting and child.exitcode:
            reason = "no time left" if timed_out else f"killed, exit code {child.exitcode}"
            found[waiting.pop(0)] = (None, reason)
    return found | dict.fromkeys(waiting, (None, "no time left"))


def _json_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _measure(context: Context, names: list[str], size: int, width: int, path: Path) -> None:
    for name in names:
        other, params = OTHERS[name] or ("", {})
        seconds, reason = None, ""
        try:
            seconds = _loss_seconds(context, f"pml:{other}", params, size, width)
        except (ImportError, RuntimeError, MemoryError) as error:
            reason = str(error).split(". ")[0][:100]
        with path.open("a") as file:
            file.write(json.dumps((name, seconds, reason)) + "\n")


def _built(name: str, **arguments: Any) -> nn.Module:
    return build_regularizer(name, **arguments) if name == "tcm" else build_loss(name, **arguments)


def _gradient_difference(context: Context, name: str) -> float:
    torch.manual_seed(0)
    on_cpu = _built(name, num_classes=128, embedding_dim=64)
    embeddings, labels = torch.randn(512, 64), torch.arange(128).repeat_interleave(4)
    expected = _gradient(on_cpu, embeddings, labels)
    found = _gradient(
        copy.deepcopy(on_cpu).to(context.device), embeddings.to(context.device), labels.to(context.device)
    )
    return float((found.cpu() - expected).norm() / expected.norm())


def _gradient(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    leaf = embeddings.detach().clone().requires_grad_()
    return torch.autograd.grad(loss(leaf, labels), leaf)[0]


def _loss_seconds(context: Context, name: str, params: dict[str, Any], size: int, width: int) -> float:
    torch.manual_seed(0)
    loss = _built(name, num_classes=size // 4, embedding_dim=width, **params).to(context.device)
    embeddings = torch.randn(size, width, device=context.device, requires_grad=True)
    labels = torch.arange(size // 4, device=context.device).repeat_interleave(4)

    def step() -> None:
        loss(embeddings, labels).backward()

    return _steady(context, step)


def _steady(context: Context, step: Callable[[], None]) -> float:
    """Seconds of one of five calls in a row, after one that was slower for what it set up."""
    first = context.seconds(step)
    repeats = 5 if first < 1.0 else 1
    return context.seconds(lambda: [step() for _ in range(repeats)]) / repeats
