"""The checks of benchmarks.gpu on what runs beside the network: evaluate(), JPEG decoding, losses, the tests."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.evaluate import make_input
from benchmarks.gpu import ROOT, Context, Row
from benchmarks.gpu_data import photographs
from dmlcore.data.jpeg import JpegImages
from dmlcore.losses import LOSSES, build_loss
from dmlcore.metrics.evaluation import Evaluation, evaluate

SHAPES = {"SOP": (60_502, 128, 11_316), "iNaturalist": (136_093, 128, 2_452)}
TOLERANCE = 1.0e-4
"""Between the metrics of two devices, whose products of float32 differ in the last bits."""


def evaluation(context: Context) -> Iterator[Row]:
    """evaluate() on the device: against the float32 product of the same embeddings, and against the CPU."""
    for data, full in SHAPES.items():
        yield from _evaluation_time(context, data, (2_000, 64, 200) if context.tiny else full)
    shape = (context.size(20_000, 1_500), 128, context.size(2_000, 150))
    x, labels = make_input(*shape)
    on_device = evaluate(x.to(context.device), labels, device=context.device, bootstrap=100)
    on_cpu = evaluate(x, labels, bootstrap=100)
    apart, name = _largest_difference(on_device, on_cpu)
    yield Row(
        f"metrics of {shape[0]:,} rows, device - CPU", apart, "", f"{TOLERANCE}", apart <= TOLERANCE, name
    )


def _largest_difference(one: Evaluation, other: Evaluation) -> tuple[float, str]:
    apart = {
        key: abs(value - other.metrics[key]) for key, value in one.metrics.items() if not math.isnan(value)
    }
    name = max(apart, key=apart.__getitem__)
    differing = [key for key, value in apart.items() if value]
    return apart[name], f"largest: {name}; different at all: {len(differing)} of {len(apart)}"


def _evaluation_time(context: Context, data: str, shape: tuple[int, int, int]) -> Iterator[Row]:
    x, labels = make_input(*shape)
    x = x.to(context.device)
    product = min(context.seconds(lambda: _product(x)) for _ in range(3))
    before = 0
    if context.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    seconds = min(context.seconds(lambda: evaluate(x, labels, device=context.device)) for _ in range(2))
    title = f"{data}, {shape[0]:,} x {shape[1]}, {shape[2]:,} classes"
    yield Row(
        title, seconds, "s", note=f"{seconds / product:.1f} times the float32 product ({product:.4f} s)"
    )
    if context.device.type == "cuda":
        peak = (torch.cuda.max_memory_allocated() - before) / 2**30
        yield Row(f"{data}, peak memory beyond the embeddings", peak, "GiB", "1", peak <= 1.0)


def _product(x: Tensor) -> None:
    buffer = torch.empty(8192, len(x), device=x.device)
    for row in range(0, len(x), len(buffer)):
        rows = x[row : row + len(buffer)]
        torch.mm(rows, x.T, out=buffer[: len(rows)])


# ------------------------------------------------------------------------------------------------ JPEG


def jpeg(context: Context) -> Iterator[Row]:
    """Decoding on threads of the CPU against nvJPEG."""
    files = photographs(context.size(512, 8))
    tensors = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
    lengths = np.array([len(file) for file in files])
    images = JpegImages(np.frombuffer(b"".join(files), np.uint8), np.cumsum(lengths) - lengths, lengths)
    yield Row("mean size of a file", float(lengths.mean()) / 1024, "KiB")
    torch.set_num_threads(1)
    for threads in context.size(16, 2), 1:
        seconds = min(context.seconds(lambda: _decode(images, threads)) for _ in range(2))  # noqa: B023
        yield Row(f"CPU, {threads} thread{'s' * (threads > 1)}", len(files) / seconds, "images/s")
    yield from _codec_rows(context, tensors)
    if context.device.type != "cuda":
        return
    from torchvision.io import ImageReadMode, decode_jpeg

    def on_gpu(count: int) -> list[Tensor]:
        found: list[Tensor] = []
        for first in range(0, len(tensors), count):
            found += decode_jpeg(
                tensors[first : first + count], mode=ImageReadMode.RGB, device=context.device
            )
        return found

    decoded = on_gpu(64)
    for count in (64, 256):
        seconds = min(context.seconds(lambda: on_gpu(count)) for _ in range(2))  # noqa: B023
        yield Row(f"nvJPEG, {count} at a time", len(files) / seconds, "images/s")
    yield from _level_rows(images, decoded)
    yield from _resize_rows(context, images)


def _decode(images: JpegImages, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(images.read, range(len(images))))


def _codec_rows(context: Context, tensors: list[Tensor]) -> Iterator[Row]:
    """The decoder that torchvision points to, where it is installed."""
    try:
        from torchcodec.decoders import decode_image
    except (ImportError, RuntimeError, OSError) as error:
        yield Row("torchcodec", note=f"not run: {type(error).__name__}")
        return
    seconds = context.seconds(lambda: [decode_image(one) for one in tensors])
    yield Row("torchcodec, 1 thread", len(tensors) / seconds, "images/s")


def _level_rows(images: JpegImages, decoded: list[Tensor]) -> Iterator[Row]:
    apart = [
        (one.cpu().permute(1, 2, 0).short() - torch.from_numpy(images.read(i)).short()).abs().flatten()
        for i, one in enumerate(decoded[:64])
    ]
    levels = torch.cat(apart)
    yield Row("nvJPEG - CPU, mean difference of a pixel", float(levels.float().mean()), "of 255")
    yield Row("nvJPEG - CPU, largest", float(levels.max()), "of 255")
    yield Row("nvJPEG - CPU, pixels more than 2 apart", float((levels > 2).float().mean()) * 100, "%")


def _resize_rows(context: Context, images: JpegImages) -> Iterator[Row]:
    """A crop resized on the device in float32 and rounded, against the CPU's fixed point."""
    from torch.nn.functional import interpolate

    picture = torch.from_numpy(np.array(images.read(0))).permute(2, 0, 1)[None, :, 10:230, 20:240]
    options: dict[str, Any] = {"size": (160, 160), "mode": "bilinear", "antialias": True}
    exact = interpolate(picture, **options).short()
    rough = interpolate(picture.to(context.device).float(), **options).round().clamp(0, 255).short().cpu()
    yield Row("resize on the device - CPU, largest", float((exact - rough).abs().max()), "of 255", "1")


# ---------------------------------------------------------------------------------------------- losses


def losses(context: Context) -> Iterator[Row]:
    """Forward and backward of each loss, and its gradient against the CPU's."""
    size, width = context.size(4000, 64), context.size(512, 32)
    for name in LOSSES:
        apart = _gradient_difference(context, name)
        yield Row(f"{name}: gradient, device - CPU, relative", apart, "", "1e-4", apart <= 1.0e-4)
        try:
            mine = _loss_seconds(context, name, {}, size, width)
        except torch.OutOfMemoryError as error:
            yield Row(f"{name}, {size} x {width}", note=str(error)[:200], ok=False)
            continue
        yield Row(f"{name}, {size} x {width}", mine * 1e3, "ms")
        yield from _other_row(context, name, mine, size, width)


def _other_row(context: Context, name: str, mine: float, size: int, width: int) -> Iterator[Row]:
    from benchmarks.losses import LOSSES as OTHERS

    if not (other := OTHERS.get(name)):
        return
    title = f"  pytorch-metric-learning's {other[0]}"
    try:
        theirs = _loss_seconds(context, f"pml:{other[0]}", other[1], size, width)
    except (ImportError, torch.OutOfMemoryError) as error:
        yield Row(title, note=f"not run: {str(error)[:150]}")
        return
    yield Row(title, theirs * 1e3, "ms", note=f"{theirs / mine:.1f} times ours")


def _gradient_difference(context: Context, name: str) -> float:
    torch.manual_seed(0)
    on_cpu = build_loss(name, num_classes=128, embedding_dim=64)
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
    loss = build_loss(name, num_classes=size // 4, embedding_dim=width, **params).to(context.device)
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


# ------------------------------------------------------------------------------------------- the tests


def repository_tests(context: Context) -> Iterator[Row]:
    """The tests that run on a GPU where there is one."""
    if context.tiny:
        yield Row("tests", note="not run: they are for a GPU")
        return
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-c", os.devnull, f"--rootdir={ROOT}"]
    command += ["-p", "no:cacheprovider", "-k", "cuda", str(ROOT / "tests" / "losses" / "test_values.py")]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        command, cwd=Path(ROOT), env=environment, capture_output=True, text=True, check=False
    )
    summary = done.stdout.strip().splitlines()[-1:] or [done.stderr[-300:]]
    yield Row("tests/losses on CUDA", None, "", "all pass", done.returncode == 0, summary[0])
    for line in done.stdout.splitlines():
        if line.startswith(("FAILED", "ERROR")):
            yield Row("  " + line[:100])
