"""The identity of a trial: what it trains, on which data, with which code; and how it is evaluated."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from dmlcore.config import TrialConfig, canonical
from dmlcore.models.weights import local_file
from dmlcore.tuning.codehash import evaluation_code, training_code


@dataclass(frozen=True)
class TrialKeys:
    """`trial` = `train` + `eval`, shortened; `inputs` is what they were made from."""

    train: str
    eval: str
    inputs: dict[str, Any]

    @property
    def trial(self) -> str:
        return f"{self.train[:16]}-{self.eval[:8]}"


def trial_keys(config: TrialConfig, data_hash: str) -> TrialKeys:
    """Keys of a trial; any change to its config, data, local weights or code gives another one."""
    training = canonical(config)
    evaluation = training.pop("evaluation")
    code = training_code([part.name for part in (config.loss, *config.regularizers)])
    inputs = {
        "data": data_hash,
        "weights": _weights_hash(config.model.backbone.weights),
        "training_code": code,
        "evaluation_code": evaluation_code(),
    }
    if inputs["weights"]:
        # The file's content counts, not where it lies.
        training["model"]["backbone"]["weights"] = "file"
    train = digest({"config": training, "data": data_hash, "weights": inputs["weights"], "code": code})
    return TrialKeys(train, digest({"evaluation": evaluation, "code": inputs["evaluation_code"]}), inputs)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of a value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@cache
def _weights_hash(weights: str | None) -> str | None:
    path = local_file(weights)
    if path is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
