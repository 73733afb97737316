"""Forecast of a study on GPUs: hours of a trial and of all trials on 1, 8 and 64, and what bounds them.

Rates come from past trials where similar ones have run on a GPU, otherwise from MEASURED. What several GPUs lose by
sharing a trial, the start of processes and checkpoints are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from dmlcore.config.trial import TrialConfig
from dmlcore.sweep.dry_run.disk import ImageCounts, frozen_trunk_key
from dmlcore.sweep.dry_run.forecast import PastTrials
from dmlcore.sweep.dry_run.network_sizes import NetworkError, operations_of
from dmlcore.sweep.plan import PlannedTrial, WaitingTrial
from dmlcore.sweep.progress import duration

GPUS = (1, 8, 64)
NODE = 8
"""GPUs of a node: no trial spans two."""
SOURCE = "one NVIDIA H200, bfloat16, benchmarks/GPU.md"


@dataclass(frozen=True)
class Throughput:
    """What one GPU was measured to train, images a second."""

    operations: float
    """Floating-point operations of a forward pass of an image, a product and its addition counted as two."""
    resident: float
    """From data that lie on the GPU."""
    nvjpeg: float
    """From JPEG files that the GPU decodes."""
    threads: float
    """From JPEG files that MEASURED_THREADS threads of the CPU decode."""
    nvjpeg_input: float
    """Decoding by the GPU alone."""
    threads_input: float
    """Decoding by that many threads alone."""


MEASURED = {
    "resnet50": Throughput(8.178e9, 4360, 3961, 1691, 14270, 2586),
    "vit_base_patch16_224": Throughput(3.513e10, 2621, 2455, 1381, 13127, 2492),
}
"""Networks at MEASURED_SIZE pixels; others are scaled by their operations, from the one of their kind."""
MEASURED_SIZE, MEASURED_THREADS = 224, 16
HIGHEST = 25_895.0
"""Images a second of a ResNet-10 at 32 pixels: beyond this the start of its kernels bounds a step, not operations."""
SWEEP_SECONDS, SWEEP_IMAGES = 11.06, 136_093
"""`evaluate` of iNaturalist's test images at 128 dimensions; it is quadratic in the images."""
REPLAY = 4 / 3
"""Forward twice and backward, the cost of two forward passes: gradient replay against an ordinary step."""


@dataclass(frozen=True)
class Cost:
    """What a trial takes of one GPU."""

    seconds: float
    bottleneck: str
    source: str
    """Where the rate comes from."""


def forecast_lines(
    counted: Iterable[tuple[PlannedTrial | WaitingTrial, int]],
    images: dict[str, ImageCounts],
    past: PastTrials,
) -> Iterator[str]:
    """Yield the forecast, a line for each data set and backbone and one for all.

    Args:
        counted: trials, and how many of each are to run.
        images: data set -> its images.
        past: trials of the study that have run.
    """
    rows: dict[tuple[str, str], list[Cost]] = {}
    features: dict[str, float] = {}
    yield f"on GPUs that share a trial without loss; rates that no record gives are those of {SOURCE}:"
    try:
        for trial, count in counted:
            config = trial.cell.config
            cost = _recorded(trial, past) or trial_cost(config, images[config.dataset])
            place = str(trial.cell.labels["dataset"]), str(trial.cell.labels["backbone"])
            rows.setdefault(place, []).extend([cost] * count)
            if config.model.trunk == "frozen":
                key = frozen_trunk_key(config)
                features[key] = features.get(key) or _features_seconds(config, images[config.dataset])
    except NetworkError as error:
        yield f"  not known: {error}"
        return
    for (dataset, backbone), costs in rows.items():
        yield f"  {len(costs)} of {dataset} {backbone}: {_trial_text(costs)}"
    yield f"  all {sum(map(len, rows.values()))}: {_study_text(rows.values(), sum(features.values()))}"


def _trial_text(costs: list[Cost]) -> str:
    middle = median(cost.seconds for cost in costs)
    typical = min(costs, key=lambda cost: abs(cost.seconds - middle))
    return (
        f"a trial {_span(middle)} on 1, {_span(middle / NODE)} on the {NODE} of a node; bottleneck "
        f"{typical.bottleneck}; {typical.source}"
    )


def _span(seconds: float) -> str:
    return "under 1 s" if seconds < 1 else duration(seconds)


def _study_text(rows: Iterable[list[Cost]], features_seconds: float) -> str:
    costs = [cost for row in rows for cost in row]
    total, longest = sum(cost.seconds for cost in costs), max(cost.seconds for cost in costs)
    total += features_seconds
    texts, bounds = [], {}
    for gpus in GPUS:
        # Trials run side by side; the longest, on the GPUs of a node, bounds them all.
        alone = longest / min(gpus, NODE)
        texts.append(f"{_span(max(total / gpus, alone))} on {gpus}")
        bounds[gpus] = "the longest trial" if alone > total / gpus else ""
    parts: dict[str, float] = {"features of frozen trunks": features_seconds}
    for cost in costs:
        parts[cost.bottleneck] = parts.get(cost.bottleneck, 0.0) + cost.seconds
    bound = max(parts, key=lambda name: parts[name])
    last = [f", on {gpus} {name}" for gpus, name in bounds.items() if name]
    return f"{', '.join(texts)}; bottleneck {bound}{''.join(last)}"


def _recorded(trial: PlannedTrial | WaitingTrial, past: PastTrials) -> Cost | None:
    """Return the cost of a trial as similar ones on a GPU had it; None if none has run on one."""
    seconds, alike = past.seconds(trial), past.similar(trial)
    devices = sorted({str(record.machine.get("gpu")) for record in alike})
    if seconds is None or devices in ([], ["None"]):
        return None
    gpus = trial.cell.config.processes or 1
    return Cost(
        seconds * gpus, "not recorded", f"rate of {len(alike)} similar trials on {', '.join(devices)}"
    )


def trial_cost(config: TrialConfig, images: ImageCounts) -> Cost:
    """Calculate what a trial takes of one GPU if validation chooses its last epoch.

    Args:
        config: of the trial.
        images: of its data set.
    """
    train = config.train
    visited = train.batches_per_epoch * train.batch_size if train.batches_per_epoch else images.train
    final = (images.train + images.validation) if train.final else 0
    trained = train.epochs * (visited + final) * (REPLAY if train.chunk_size else 1.0)
    # An embedded image is counted as a trained one, which takes longer; the untrained network is embedded as well.
    embedded = (train.epochs + 2) * images.validation + 3 * images.test
    if config.model.trunk == "frozen":
        rate, bottleneck, source = HIGHEST, "the GPU", "for the head alone, the highest rate measured"
    else:
        rate, bottleneck, source = _rate(config, images)
    stepping = (trained + embedded) / rate
    pairs = 4 * images.test**2 + (train.epochs + 2) * images.validation**2
    evaluating = SWEEP_SECONDS / SWEEP_IMAGES**2 * pairs
    if evaluating > stepping:
        bottleneck = "evaluation"
    return Cost(stepping + evaluating, bottleneck, f"{rate:,.0f} images/s {source}")


def _features_seconds(config: TrialConfig, images: ImageCounts) -> float:
    rate, _, _ = _rate(config, images)
    return (images.train + images.validation + images.test) / rate


def _rate(config: TrialConfig, images: ImageCounts) -> tuple[float, str, str]:
    """Return images a second of training, what bounds them, and where the number comes from."""
    size = config.input.size if config.input else images.side
    name, arguments = config.model.backbone.name, config.model.backbone.arguments
    listed = name in MEASURED and size == MEASURED_SIZE and not arguments
    if listed:
        row, resident, source = MEASURED[name], MEASURED[name].resident, f"of {name}"
    else:
        # The head counts for nothing, and cells that differ in it alone share the count.
        plain = config.model.model_copy(update={"embedding_dim": 1, "normalization": "none", "trunk": None})
        operations, convolutional = operations_of(plain.model_dump_json(), images.channels, size)
        name = "resnet50" if convolutional else "vit_base_patch16_224"
        row = MEASURED[name]
        resident, source = row.resident * row.operations / operations, f"scaled by operations from {name}"
        if resident > HIGHEST:
            resident, source = HIGHEST, "at most, the highest rate measured"
    if config.train.precision is None:
        source += ", less in float32"
    if not images.jpeg:
        return resident, "the GPU", source
    if config.train.decoder == "gpu":
        decoding, measured, decoder = row.nvjpeg_input, row.nvjpeg, "the GPU"
    else:
        threads = config.threads
        decoding, measured = row.threads_input * min(1.0, threads / MEASURED_THREADS), row.threads
        decoder = f"decoding by {threads} CPU threads a GPU"
        listed = listed and threads >= MEASURED_THREADS
    # Where both were measured alone and together, together took as long as one after the other, or up to 18 % less.
    rate = measured if listed else 1 / (1 / resident + 1 / decoding)
    return rate, decoder if decoding < resident else "the GPU", source
