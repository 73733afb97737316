"""The checks of benchmarks.gpu on training: hidden waits, images a second, precision, resuming, time of an epoch."""

from __future__ import annotations

import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu import Context, Row
from benchmarks.gpu_data import JPEG_INPUT, TINY_BACKBONE, jpeg_dataset, raw_dataset, trial
from dmlcore.losses import LOSSES, build_loss
from dmlcore.training import run_trial
from dmlcore.training.run import make_deterministic
from dmlcore.training.store import TrialStore
from dmlcore.training.trainer import Trainer

SYNCHRONISING = "called a synchronizing CUDA operation"


# ------------------------------------------------------------------------------- hidden synchronisation


def synchronisation(context: Context) -> Iterator[Row]:
    """Operations of a training step that make the CPU wait for the GPU, by the line that calls them."""
    for name in LOSSES:
        yield _waits_row(f"loss {name}", _waits_of_loss(context, name), 0)
    small = {"model": small_model(context), "loss": {"name": "proxy_anchor"}}
    batch = context.size(64, 8)
    plain = {"batch_size": batch, "batches_per_epoch": STEPS, "optimizer": {"gradient_clip": 1.0}}
    data = raw_dataset(context.folder / "raw", {"train": (32, 16), "validation": (4, 8), "test": (4, 8)})
    yield _waits_of_epoch(context, "raw images", data, trial(train=plain, **small))
    augmented = plain | {"augmentation": {"rotation_degrees": 9.0, "horizontal_flip": True}}
    yield _waits_of_epoch(context, "augmented", data, trial(train=augmented, **small))
    data = jpeg_dataset(
        context.folder / "jpeg", {"train": (16, 16), "validation": (4, 8), "test": (4, 8)}, 16
    )
    small["input"] = JPEG_INPUT | {"size": context.size(64, 16)}
    rough = plain | {"precision": "bfloat16"}
    yield _waits_of_epoch(context, "JPEG, bfloat16", data, trial(train=rough, **small))
    if context.device.type == "cuda":
        decoded = trial(train=rough | {"decoder": "gpu"}, **small)
        yield _waits_of_epoch(context, "JPEG by nvJPEG, bfloat16", data, decoded)
    backbone = small["model"]["backbone"] | {"freeze_batch_norm": True}
    small["model"] = small["model"] | {"backbone": backbone}
    chunked = trial(train=plain | {"chunk_size": batch // 4}, **small)
    yield _waits_of_epoch(context, "JPEG, four chunks a batch", data, chunked)


STEPS = 8


def _waits_of_epoch(context: Context, what: str, data: Any, config: Any) -> Row:
    trainer = _trainer(context, data, config)
    trainer.train_epoch(1)
    with waits(context) as found:
        trainer.train_epoch(2)
    # One at the end of an epoch, which returns the mean loss.
    return _waits_row(f"epoch of {STEPS} steps, {what}", found, 1)


def _waits_of_loss(context: Context, name: str) -> Counter[str]:
    loss = build_loss(name, num_classes=64, embedding_dim=128).to(context.device)
    labels = torch.arange(64).repeat_interleave(4)  # on the CPU, as a trial hands them over
    if context.device.type == "cuda":
        labels = labels.pin_memory()
    embeddings = torch.randn(256, 128, device=context.device, requires_grad=True)
    loss(embeddings, labels).backward()
    with waits(context) as found:
        loss(embeddings, labels).backward()
    return found


def _waits_row(what: str, found: Counter[str], allowed: int) -> Row:
    note = "; ".join(f"{count} x {line}" for line, count in found.most_common(6))
    count = sum(found.values())
    return Row(what, count, "waits", f"at most {allowed}", count <= allowed, note)


@contextmanager
def waits(context: Context) -> Iterator[Counter[str]]:
    """Count what waits for the GPU, by the innermost line of dmlcore that called it. On a CPU nothing is counted."""
    found: Counter[str] = Counter()

    def note(message: Warning | str, *_: Any) -> None:
        # What makes the batches in a thread of its own may wait: the step goes on.
        if SYNCHRONISING in str(message) and threading.current_thread() is threading.main_thread():
            found[_innermost()] += 1

    if context.device.type != "cuda":
        yield found
        return
    shown, warnings.showwarning = warnings.showwarning, note
    torch.cuda.synchronize()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = note
            torch.cuda.set_sync_debug_mode("warn")
            yield found
    finally:
        torch.cuda.set_sync_debug_mode("default")
        warnings.showwarning = shown


def _innermost() -> str:
    stack = [frame for frame in traceback.extract_stack() if __name__.split(".")[-1] not in frame.filename]
    ours = [frame for frame in stack if "dmlcore" in Path(frame.filename).parts]
    frame = (ours or stack)[-1]
    return f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} {frame.line}"


# ------------------------------------------------------------------------------- precision and resuming


def bfloat16(context: Context) -> Iterator[Row]:
    """20 steps in bfloat16 against the same 20 in float32, beside float32 with its batches in another order.

    A rounding error grows with each step, so no fixed share of the loss is right. What must hold for a comparison of
    trials: bfloat16 moves a trial less than the order of its batches does, which each seed draws anew.
    """
    counts = {"train": (64, 16), "validation": (4, 8), "test": (4, 8)}
    data = raw_dataset(context.folder / "raw", counts)
    make_deterministic(1)
    exact = _update(context, data, None, 0)
    orders = [_apart(exact, _update(context, data, None, seed)) for seed in range(1, context.size(6, 3))]
    for name, others in (
        ("bfloat16, the same batches", [_apart(exact, _update(context, data, "bfloat16", 0))]),
        ("float32, other orders of the batches, mean", orders),
    ):
        losses, cosines = zip(*others, strict=True)
        apart, cosine = sum(losses) / len(losses), sum(cosines) / len(cosines)
        if len(others) == 1:
            half = apart, cosine
        yield Row(f"{name}: mean loss, relative difference", apart, "", "", None, f"loss {exact[0]:.4f}")
        yield Row(f"{name}: cosine of the updates of the weights", cosine)
    yield Row(
        "bfloat16 moves a trial less than the order does",
        None,
        "",
        "loss and cosine",
        None if context.tiny else half[0] < apart and half[1] > cosine,
    )


def _update(context: Context, data: Any, precision: str | None, order: int) -> tuple[float, Tensor]:
    """Mean loss of an epoch and what it added to the weights; the initial weights are always the same."""
    train = {"batch_size": 64, "batches_per_epoch": context.size(20, 4), "precision": precision}
    trainer = _trainer(context, data, trial(train=train, model=small_model(context)))
    trainer.config = trainer.config.model_copy(update={"seed": order})
    start = nn.utils.parameters_to_vector(trainer.model.parameters()).detach().clone()
    loss = trainer.train_epoch(1)["train/loss"]
    end = nn.utils.parameters_to_vector(trainer.model.parameters()).detach()
    return loss, (end - start).double()


def _apart(one: tuple[float, Tensor], other: tuple[float, Tensor]) -> tuple[float, float]:
    return abs(one[0] - other[0]) / abs(one[0]), float(torch.cosine_similarity(one[1], other[1], dim=0))


class _StopError(Exception):
    pass


def resume(context: Context) -> Iterator[Row]:
    """Trials on the device twice, and once interrupted: the same metrics and the same files, to the bit."""
    counts = {"train": (32, 16), "validation": (8, 8), "test": (8, 8)}
    data = raw_dataset(context.folder / "raw", counts)
    photographs = jpeg_dataset(context.folder / "jpeg", counts, context.size(64, 16))
    train = {"epochs": context.size(3, 2), "batch_size": context.size(64, 8)}
    train["batches_per_epoch"] = context.size(6, 2)
    augmented = train | {"augmentation": {"rotation_degrees": 9.0, "horizontal_flip": True}}
    for name, settings in {
        "float32, proxy_anchor": {"loss": {"name": "proxy_anchor"}, "train": train},
        "bfloat16, smooth_ap, augmented": {
            "loss": {"name": "smooth_ap"},
            "train": augmented | {"precision": "bfloat16"},
        },
        "JPEG by nvJPEG": {
            "input": JPEG_INPUT | {"size": 64},
            "train": train | {"decoder": "gpu", "augmentation": {"horizontal_flip": True}},
        },
    }.items():
        if context.tiny and ("bfloat16" in name or "nvJPEG" in name):
            continue
        used = photographs if "input" in settings else data
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            whole, again, resumed = (_run(context, used, settings, name, kind) for kind in range(3))
        notes = {str(w.message).split(".")[0][:90] for w in caught if "determin" in str(w.message)}
        yield Row(
            f"{name}: a second run", None, "", "the same bits", whole == again, "; ".join(sorted(notes))
        )
        differing = [key for key, value in whole.metrics.items() if resumed.metrics[key] != value]
        yield Row(f"{name}: resumed", None, "", "the same bits", whole == resumed, ", ".join(differing[:4]))


def _run(context: Context, data: Any, settings: dict[str, Any], name: str, kind: int) -> Any:
    store = TrialStore(context.folder / name.replace(" ", "") / str(kind) / "trial")

    def report(epoch: Any) -> None:
        if epoch.epoch == 1 + (not context.tiny):
            raise _StopError

    arguments: dict[str, Any] = {"store": store, "device": context.device, "checkpoint_seconds": 0.0}
    if kind == 2:
        with suppress(_StopError):
            run_trial(trial(model=small_model(context), **settings), data, report=report, **arguments)
    return run_trial(trial(model=small_model(context), **settings), data, **arguments)


def epoch(context: Context) -> Iterator[Row]:
    """One epoch on 20,000 pictures of 32 x 32 that a ResNet-10 learns, with its validation."""
    classes = context.size(500, 8)
    data = raw_dataset(
        context.folder / "raw",
        {"train": (classes, 40), "validation": (context.size(50, 4), 40), "test": (4, 8)},
    )
    for precision in (None, "bfloat16"):
        model = small_model(context) | {"channels_last": True}
        train = {"batch_size": context.size(256, 16), "precision": precision}
        train["batches_per_epoch"] = 4 if context.tiny else None
        trainer = _trainer(context, data, trial(model=model, train=train))
        trainer.train_epoch(1)
        seconds = min(context.seconds(lambda: trainer.train_epoch(2)) for _ in range(2))  # noqa: B023
        yield Row(
            f"training epoch, {precision or 'float32'}", seconds, "s", note=f"{classes * 40 / seconds:,.0f}/s"
        )
        embedding = context.seconds(lambda: trainer.embed("validation"))  # noqa: B023
        yield Row("embed 2,000 validation images", embedding, "s")


def small_model(context: Context) -> dict[str, Any]:
    """A ResNet-10 for pictures of 32 x 32."""
    backbone = TINY_BACKBONE if context.tiny else {"name": "resnet10t"}
    return {"backbone": backbone, "embedding_dim": 64}


def _trainer(context: Context, data: Any, config: Any) -> Trainer:
    return Trainer(config, data, "train", context.device, context.folder / "caches")
