"""The checks of benchmarks.gpu on what runs beside the network: evaluate(), JPEG decoding, the tests."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.evaluate import make_input
from benchmarks.gpu import ROOT, Context, Row
from benchmarks.gpu_data import photographs
from benchmarks.input_path import CROP
from dmlcore.data.decoders import decode_on
from dmlcore.data.jpeg import JpegImages
from dmlcore.metrics.evaluation import Evaluation, evaluate
from dmlcore.training.input_pipeline import InputPipeline

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
    encoded = [images.encoded(i) for i in range(len(images))]

    def on_gpu(count: int) -> list[Tensor]:
        found: list[Tensor] = []
        for first in range(0, len(encoded), count):
            found += decode_on(context.device, encoded[first : first + count])
        return found

    decoded = on_gpu(64)
    for count in (64, 256):
        seconds = min(context.seconds(lambda: on_gpu(count)) for _ in range(2))  # noqa: B023
        yield Row(f"nvJPEG, {count} at a time", len(files) / seconds, "images/s")
    whole = [torch.from_numpy(images.read(i)).permute(2, 0, 1) for i in range(64)]
    yield from _level_rows("nvJPEG - CPU", decoded[:64], whole)
    yield from _crop_rows(context, images)


def _crop_rows(context: Context, images: JpegImages) -> Iterator[Row]:
    """Training crops: decoded by nvJPEG and resized on the device, against the CPU's."""
    options: dict[str, Any] = {"size": 224, "random_crop": CROP, "flip": True, "workers": 16}
    batches = [np.arange(128) + 128 * i for i in range(4)]
    found: list[list[Tensor]] = []
    for pipeline in (
        InputPipeline(images, **options),
        InputPipeline(images, **options, decode_on=context.device),
    ):
        pipeline.gpu_crops and list(pipeline.training_batches(batches, np.random.default_rng(0)))
        found.append([])
        seconds = context.seconds(
            lambda: found[-1].extend(pipeline.training_batches(batches, np.random.default_rng(0)))  # noqa: B023
        )
        name = "nvJPEG" if pipeline.gpu_crops else "CPU, 16 threads"
        yield Row(f"four batches of 128 crops, {name}", 512 / seconds, "images/s")
    yield from _level_rows("training crops, nvJPEG - CPU", found[1], found[0])


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


def _level_rows(what: str, found: list[Tensor], expected: list[Tensor]) -> Iterator[Row]:
    pairs = zip(found, expected, strict=True)
    levels = torch.cat([(one.cpu().short() - other.short()).abs().flatten() for one, other in pairs])
    yield Row(f"{what}, mean difference of a pixel", float(levels.float().mean()), "of 255")
    yield Row(f"{what}, largest", float(levels.max()), "of 255")
    yield Row(f"{what}, pixels more than 2 apart", float((levels > 2).float().mean()) * 100, "%")


# ------------------------------------------------------------------------------------------- the tests


def repository_tests(context: Context) -> Iterator[Row]:
    """The tests that run on a GPU where there is one."""
    if context.tiny:
        yield Row("tests", note="not run: they are for a GPU")
        return
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-c", os.devnull, f"--rootdir={ROOT}"]
    command += ["-p", "no:cacheprovider", "-k", "cuda", str(ROOT / "tests" / "losses" / "test_values.py")]
    command += [str(ROOT / "tests" / "training" / "test_gpu_crops.py")]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        command, cwd=Path(ROOT), env=environment, capture_output=True, text=True, check=False
    )
    summary = done.stdout.strip().splitlines()[-1:] or [done.stderr[-300:]]
    yield Row(
        "tests of losses and of decoding, on CUDA", None, "", "all pass", done.returncode == 0, summary[0]
    )
    for line in done.stdout.splitlines():
        if line.startswith(("FAILED", "ERROR", "E  ")):
            yield Row("  " + line[:100])
