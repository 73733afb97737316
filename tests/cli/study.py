"""A study with finished trials on disk, their embeddings drawn and not trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import yaml

from dmlcore.config.base import canonical
from dmlcore.config.study import load_study
from dmlcore.records import RecordFolder, TrialRecord
from dmlcore.sweep.grid import expand
from dmlcore.training.evaluation import evaluate_stored
from dmlcore.training.store import TrialStore
from tests.small import TRIAL

SWEEP = {
    "study": "drawn",
    "datasets": ["small"],
    "seeds": [0, 1],
    "backbones": {"tiny": {"model": TRIAL["model"]}},
    "losses": {"triplet": {"loss": {"name": "triplet"}}},
    "regularizers": [[], [{"name": "tcm"}]],
}


def drawn(classes: int, images: int, seed: int) -> dict[str, torch.Tensor]:
    """Stored embeddings of a split, classes about random centres."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), images)
    embeddings = random.normal(size=(classes, 8))[labels] + 0.5 * random.normal(size=(len(labels), 8))
    index = torch.arange(len(labels))
    return {
        "embeddings": torch.as_tensor(embeddings).float(),
        "labels": torch.as_tensor(labels),
        "index": index,
    }


def write_study(folder: Path) -> list[TrialRecord]:
    """Write params.yaml, four finished trials with their files, and a failed one; returns the finished ones."""
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump({"sweep": SWEEP}))
    records = []
    for number, cell in enumerate(expand(load_study(folder / "params.yaml").sweep)):
        key = f"{number}".zfill(16)
        store = TrialStore(folder / "state" / "storage" / key)
        validation, test = drawn(20, 6, 2 * number), drawn(30, 5, 2 * number + 1)
        store.save("validation", validation)
        store.save("test", test)
        record = TrialRecord(
            trial_key=f"{key}-abcdef01",
            train_key=key + "0" * 48,
            eval_key="abcdef01" * 8,
            status="finished",
            config=canonical(cell.config),
            labels=cell.labels,
            files={name: store.digest(name) for name in ("validation", "test")},
            metrics=dict(evaluate_stored(store.load, cell.config.evaluation)[0]),
        )
        RecordFolder(folder / "state" / "records").write(record)
        records.append(record)
    failed = record.model_copy(
        update={"trial_key": "f" * 16 + "-abcdef01", "train_key": "f" * 64, "status": "failed"}
    )
    RecordFolder(folder / "state" / "records").write(failed)
    return records
