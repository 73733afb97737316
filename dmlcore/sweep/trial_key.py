"""The identity of a trial: what it trains, on which data, with which code; and how it is evaluated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from dmlcore.config.base import canonical
from dmlcore.config.trial import TrialConfig
from dmlcore.core.code_hash import code_hashes, loss_modules
from dmlcore.core.hashing import file_sha256, json_sha256
from dmlcore.models.weights import local_file

PREPARATION = ("dmlcore.data.manifest", "dmlcore.datasets.prepare.splits")
"""What they do to the data is in the data hash."""


NOT_TRAINING = (
    "dmlcore.config",
    "dmlcore.metrics",
    "dmlcore.tracking",
    "dmlcore.training.evaluation",
    *PREPARATION,
)
NOT_EVALUATION = ("dmlcore.config", "dmlcore.tracking")


def training_code(components: Iterable[str]) -> dict[str, str]:
    """Hash of each file that training with these losses and regularisers runs through."""
    roots = {module for name in components for module in loss_modules(name)}
    return code_hashes(frozenset({"dmlcore.training.run", *roots}), NOT_TRAINING)


def evaluation_code() -> dict[str, str]:
    """Hash of each file that the final evaluation runs through."""
    return code_hashes(frozenset({"dmlcore.training.evaluation"}), NOT_EVALUATION)


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
    train = json_sha256({"config": training, "data": data_hash, "weights": inputs["weights"], "code": code})
    return TrialKeys(
        train, json_sha256({"evaluation": evaluation, "code": inputs["evaluation_code"]}), inputs
    )


@cache
def _weights_hash(weights: str | None) -> str | None:
    path = local_file(weights)
    return file_sha256(path) if path else None
