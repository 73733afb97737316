"""The checks of benchmarks.gpu on images a second: training steps from JPEG files against resident random data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from torch import nn

from benchmarks.gpu import Context, Row
from benchmarks.gpu_data import JPEG_INPUT, TINY_BACKBONE, jpeg_dataset, trial
from dmlcore.data.transforms import to_float
from dmlcore.training.loader import Batch, autocast
from dmlcore.training.run import make_deterministic
from dmlcore.training.trainer import Trainer

THREADS = 16


def resnet50(context: Context) -> Iterator[Row]:
    """Training steps of ResNet-50 at 224 pixels from JPEG files against the same network on resident data."""
    yield from _rates(context, _resnet(context), compiled=False)


def vit_base(context: Context) -> Iterator[Row]:
    """The same of ViT-B/16."""
    yield from _rates(context, _vit(context), compiled=False)


def compiled_resnet50(context: Context) -> Iterator[Row]:
    """The same with torch.compile, both sides by the same compiled network."""
    yield from _rates(context, _resnet(context), compiled=True)


def compiled_vit_base(context: Context) -> Iterator[Row]:
    """The same of ViT-B/16."""
    yield from _rates(context, _vit(context), compiled=True)


def _resnet(context: Context) -> dict[str, Any]:
    backbone = TINY_BACKBONE if context.tiny else {"name": "resnet50"}
    return {"backbone": backbone, "channels_last": True}


def _vit(context: Context) -> dict[str, Any]:
    tiny = {"img_size": 32, "depth": 2, "embed_dim": 32, "num_heads": 2}
    return {
        "backbone": {"name": "vit_base_patch16_224", "arguments": tiny if context.tiny else {}},
        "pooling": "token",
    }


def _rates(context: Context, model: dict[str, Any], *, compiled: bool) -> Iterator[Row]:
    batch, steps = context.size(128, 8), context.size(40, 2)
    make_deterministic(context.size(THREADS, 1))
    data = _photograph_data(context)
    decoders = ("gpu", None) if context.device.type == "cuda" else (None,)
    decoders = decoders[:1] if compiled else decoders  # each trainer compiles its network anew
    trainers = [_trainer(context, data, model, decoder, compiled) for decoder in decoders]
    network = trainers[0].forward if compiled else _timm(context, model)
    resident = _resident_step(context, network, batch)
    plain = lambda: [resident() for _ in range(steps)]  # noqa: E731
    with deterministic(True):
        for trainer in trainers:
            trainer.train_epoch(1)
        before = _rate(context, plain, batch * steps)
        found = [_trainer_rates(context, trainer, steps, batch) for trainer in trainers]
        same = max(before, _rate(context, plain, batch * steps))
    yield Row("resident random data, deterministic kernels", same, "images/s")
    for decoder, rates in zip(decoders, found, strict=True):
        yield from _rate_rows(context, decoder, rates, same)
    if compiled:  # other kernels would compile it anew
        return
    with deterministic(False):
        # The first steps try several kernels for each convolution.
        context.seconds(lambda: [resident() for _ in range(context.size(10, 1))])
        free = _rate(context, plain, batch * steps)
    note = f"Trainer / this: {found[0]['files'] / free:.3f}"
    yield Row("resident random data, any kernels", free, "images/s", note=note)
    if context.device.type == "cuda":
        yield Row("peak GPU memory", torch.cuda.max_memory_allocated() / 2**30, "GiB")


def _trainer(
    context: Context, data: Any, model: dict[str, Any], decoder: str | None, compiled: bool
) -> Trainer:
    train = {
        "batch_size": context.size(128, 8),
        "batches_per_epoch": context.size(40, 2),
        "precision": "bfloat16",
        "augmentation": {"horizontal_flip": True},
        "decoder": decoder,
    }
    config = trial(
        input=JPEG_INPUT | {"size": context.size(224, 32)},
        model={**model, "embedding_dim": 512, "compile": compiled and not context.tiny},
        train=train,
        threads=context.size(THREADS, 1),
    )
    return Trainer(config, data, "train", context.device, context.folder / "caches")


def _trainer_rates(context: Context, trainer: Trainer, steps: int, batch: int) -> dict[str, float]:
    """Images a second from files, of the input alone, and of the trainer on a batch that stays on the device."""
    epochs = [_rate(context, lambda: trainer.train_epoch(epoch), batch * steps) for epoch in (2, 3)]  # noqa: B023
    rates = {"files": max(epochs), "slower epoch": min(epochs)}
    rates["input"] = _input_rate(context, trainer, steps, batch)
    files, trainer.loader = trainer.loader, _OneBatch(trainer, batch)  # type: ignore[assignment]
    rates["one batch"] = _rate(context, lambda: trainer.train_epoch(4), batch * steps)
    trainer.loader = files
    return rates


class _OneBatch:
    """The same pixels for each step, on the device: what is left of a step is the trainer's own."""

    def __init__(self, trainer: Trainer, batch: int) -> None:
        side = trainer.loader.pipeline.shape[0]  # type: ignore[union-attr]
        pixels = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, device=trainer.device)
        self.batch = Batch(batch, lambda rows: to_float(pixels[rows]))

    def training_batches(
        self, batches: list[Any], *, seed: int, epoch: int, share: Any = None
    ) -> Iterator[Batch]:
        return (self.batch for _ in batches)


def _rate_rows(context: Context, decoder: str | None, rates: dict[str, float], same: float) -> Iterator[Row]:
    name = "nvJPEG" if decoder else f"{context.size(THREADS, 1)} threads"
    yield Row(
        f"Trainer, JPEG files, {name}",
        rates["files"],
        "images/s",
        note=f"slower: {rates['slower epoch']:,.0f}",
    )
    ratio = rates["files"] / same
    asked = decoder is not None and not context.tiny
    yield Row(
        f"Trainer / resident, {name}",
        ratio,
        "",
        "0.9" if asked else "",
        ratio >= 0.9 if asked else None,
    )
    yield Row(f"input path alone, {name}", rates["input"], "images/s")
    yield Row("Trainer, one batch that stays on the device", rates["one batch"], "images/s")


def _photograph_data(context: Context) -> Any:
    classes = context.size(512, 8)
    counts = {"train": (classes, 16), "validation": (8, 8), "test": (8, 8)}
    return jpeg_dataset(context.folder / "photographs", counts, context.size(512, 16))


def _timm(context: Context, model: dict[str, Any]) -> nn.Module:
    network = timm.create_model(num_classes=512, **_timm_arguments(model)).to(context.device)
    return network.to(memory_format=torch.channels_last) if model.get("channels_last") else network


def _timm_arguments(model: dict[str, Any]) -> dict[str, Any]:
    return {"model_name": model["backbone"]["name"]} | model["backbone"].get("arguments", {})


def _resident_step(context: Context, network: nn.Module, batch: int) -> Callable[[], None]:
    """A plain step on one batch that stays on the device: forward, mean of squares, backward, AdamW."""
    network.train()
    side = context.size(224, 32)
    images = torch.randn(batch, 3, side, side, device=context.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1.0e-6, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(context.device, "bfloat16"):
            output = network(images)
        output.float().square().mean().backward()
        optimizer.step()

    for _ in range(context.size(5, 1)):
        step()
    return step


def _rate(context: Context, run: Callable[[], object], images: int) -> float:
    return images / context.seconds(run)


def _input_rate(context: Context, trainer: Trainer, steps: int, batch: int) -> float:
    """Batches on the device as the network takes them, and nothing else."""
    batches = trainer._batches(9)

    def run() -> None:
        for loaded in trainer.loader.training_batches(batches, seed=0, epoch=9):
            loaded.chunk(slice(None))

    return _rate(context, run, batch * steps)


@contextmanager
def deterministic(on: bool) -> Iterator[None]:
    torch.use_deterministic_algorithms(on, warn_only=True)
    torch.backends.cudnn.benchmark = not on
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
