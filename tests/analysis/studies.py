"""Made-up studies for the parts: many losses, a grid of margins, a 2-D embedding; their truth is set by hand."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from dmlcore.analysis.study import Study
from dmlcore.config.study import AggregateConfig, FigureConfig
from dmlcore.core.hashing import file_sha256
from dmlcore.records import RecordFolder, TrialRecord
from tests.analysis.synthetic import TCM, dataset_info, table, trial

SMALL = FigureConfig(dots_per_inch=50)
LOSSES = tuple(f"loss_{letter}" for letter in "abcdefghijkl")
BEND = 0.33


def losses_study(slope_above: float, noise: float = 0.0008) -> Study:
    """12 losses x 3 batch sizes, no regulariser: OPIS falls by 0.06 per MAP@R up to BEND, above by `-slope_above`."""
    random = np.random.default_rng(3)
    found = []
    for i, loss in enumerate(LOSSES):
        for batch_size in (32, 64, 128):
            accuracy = 0.12 + 0.034 * i + 0.03 * np.log2(batch_size / 64) + 0.01 * random.normal()
            for seed in (0, 1):
                row = trial("glyphs", "resnet10", loss, "baseline", seed, **{"train.batch_size": batch_size})
                x = accuracy + 0.004 * random.normal()
                y = 0.03 - 0.06 * min(x, BEND) + slope_above * max(0.0, x - BEND) + noise * random.normal()
                row |= {"test/map_at_r": x, "test/opis": y + 0.004, "test/opis_corrected": y}
                found.append(row)
    return as_study(found, "pareto")


def margins_study(seeds: tuple[int, ...] = (0, 1)) -> Study:
    """A 3 x 3 grid of margins on smooth_ap, TCM alone, and a base with 4 learning rates."""
    return as_study(margins_rows(seeds), "margins")


def margins_rows(seeds: tuple[int, ...] = (0, 1)) -> list[dict[str, Any]]:
    """Validation likes margins 0.8 / 0.4 and rate 0.003 best; on test 0.9 / 0.5 and 0.01 would be better."""
    found = []
    for seed in seeds:
        for up in (0.7, 0.8, 0.9):
            for down in (0.3, 0.4, 0.5):
                variant = f"tcm(negative_margin={down:g},positive_margin={up:g})"
                score = 0.45 - abs(up - 0.8) - abs(down - 0.4)
                found.append(_scored("smooth_ap", variant, seed, 0.003, score, 0.3 + up * down / 2))
                found.append(_scored("none", variant, seed, 0.003, score - 0.1, 0.2))
        for rate in (0.001, 0.003, 0.005, 0.01):
            score = 0.4 - abs(np.log(rate / 0.003)) / 20
            found.append(_scored("smooth_ap", "baseline", seed, rate, score, 0.3 + rate))
    return found


def _scored(
    loss: str, variant: str, seed: int, rate: float, validation: float, test: float
) -> dict[str, Any]:
    row = trial("glyphs", "resnet10", loss, variant, seed, **{"train.optimizer.learning_rate": rate})
    return row | {"validation/map_at_r": validation + 0.001 * seed, "test/map_at_r": test + 0.001 * seed}


def store_test_embeddings(storage: Path, train: str, tensors: dict[str, Any]) -> None:
    """Write the embeddings of the trial `TRAIN-7488e813`, and below `storage/records` its record."""
    file = storage / train / "test.safetensors"
    file.parent.mkdir(parents=True)
    save_file(tensors, file)
    record = TrialRecord(
        trial_key=f"{train}-7488e813",
        train_key=train * 4,
        eval_key="7488e813" * 8,
        status="finished",
        config={},
        files={"test": file_sha256(file)},
    )
    RecordFolder(storage / "records").write(record)


def toy_rows(storage: Path, width: int = 2) -> list[dict[str, Any]]:
    """Four classes on a circle, baseline and TCM, two seeds; their embeddings are in `storage`."""
    random, found = np.random.default_rng(0), []
    for variant in ("baseline", TCM):
        for seed in (0, 1):
            row = trial("mnist", "conv", "smooth_ap", variant, seed)
            train = hashlib.sha256(f"{variant}{seed}".encode()).hexdigest()[:16]
            labels = np.repeat(np.arange(4), 12)
            angles = labels * np.pi / 2 + 0.2 * random.normal(size=labels.size)
            points = np.stack([np.cos(angles), np.sin(angles), *[angles] * (width - 2)], axis=1)
            tensors = {"embeddings": 3 * points.astype(np.float32), "labels": labels, "index": labels}
            store_test_embeddings(storage, train, tensors)
            found.append(row | {"trial_key": f"{train}-7488e813"})
    return found


def as_study(found: list[dict[str, Any]], part: str, storage: Path | None = None) -> Study:
    config = AggregateConfig.model_validate({"parts": (part,), "figure": SMALL})
    datasets = {row["dataset"]: dataset_info() for row in found}
    return Study(table(found), datasets, config, storage, records=storage and storage / "records")
