"""The identity of a trial: what it trains, on which data, with which code; and how it is evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dmlcore.config.base import canonical
from dmlcore.config.trial import TrialConfig
from dmlcore.core.hashing import file_sha256, json_sha256
from dmlcore.training.code_hash import KEYED_BY_VALUE, code_hashes, library_versions, loss_modules

CHECKOUT, WEIGHTS_SUFFIXES = Path(__file__).resolve().parents[2], (".safetensors", ".pth", ".pt")
NOT_CHOOSING = tuple(
    f"dmlcore.metrics.{name}" for name in ("consistency", "class_counts", "class_scores", "verification")
)
"""The metrics of thresholds, which `evaluate` computes after MAP@R and from which MAP@R takes nothing."""
NOT_TRAINING = (*KEYED_BY_VALUE, *NOT_CHOOSING, "dmlcore.training.evaluation")


def training_code(components: Iterable[str]) -> dict[str, str]:
    """Hash each file that decides the weights of a trial with these losses and regularisers.

    Validation MAP@R chooses the epoch, so the code of `evaluate` up to MAP@R belongs to it: after an edit the stored
    weights may be those of an epoch that would no longer be chosen. The other metrics are left out, so that an edit of
    OPIS only evaluates the stored embeddings again. New modules of dmlcore.metrics count until they are left out.
    """
    return _training_code(frozenset(module for name in components for module in loss_modules(name)))


@cache
def _training_code(losses: frozenset[str]) -> dict[str, str]:
    # Each root apart: the trials of a study combine a few losses in many ways, and the files of all are read once.
    hashes = code_hashes(frozenset({"dmlcore.training.run"}), NOT_TRAINING)
    for module in sorted(losses):
        hashes = hashes | code_hashes(frozenset({module}), NOT_TRAINING)
    return dict(sorted(hashes.items()))


def evaluation_code() -> dict[str, str]:
    """Hash each file that the final evaluation runs through."""
    return code_hashes(frozenset({"dmlcore.training.evaluation"}), KEYED_BY_VALUE)


@dataclass(frozen=True)
class TrialKeys:
    """`trial` = `train` + `eval`, shortened; `inputs` is what they were made from."""

    train: str
    eval: str
    inputs: dict[str, Any]

    @property
    def trial(self) -> str:
        return f"{self.train[:16]}-{self.eval[:8]}"


def trial_keys(config: TrialConfig, data_hash: str, versions: Mapping[str, str] | None = None) -> TrialKeys:
    """Compute the keys of a trial; any change to its config, data, local weights, code or libraries gives another one.

    The libraries' versions are in the train key alone: embeddings are evaluated again only under the train key that
    they were made with, hence never under another torch.

    Args:
        config: of the trial.
        data_hash: of its prepared data set.
        versions: `library_versions()`, where a caller that plans thousands of trials has asked once.
    """
    training = canonical(config)
    evaluation = training.pop("evaluation")
    inputs = {
        "data": data_hash,
        "weights": _weights_hash(config.model.backbone.weights),
        "training_code": training_code([part.name for part in (config.loss, *config.regularizers)]),
        "evaluation_code": evaluation_code(),
        "versions": dict(versions or library_versions()),
    }
    if inputs["weights"]:
        # The file's content counts, not its path.
        training["model"]["backbone"]["weights"] = "file"
    train = {
        "config": training,
        "data": data_hash,
        "weights": inputs["weights"],
        "code": inputs["training_code"],
        "versions": inputs["versions"],
    }
    eval_key = json_sha256({"evaluation": evaluation, "code": inputs["evaluation_code"]})
    return TrialKeys(json_sha256(train), eval_key, inputs)


@cache
def _weights_hash(weights: str | None) -> str | None:
    path = weights_file(weights)
    return file_sha256(path) if path else None


def weights_file(weights: str | None) -> Path | None:
    """Return what `dmlcore.models.weights.local_file` returns, without torch for a file that is there.

    That module imports torch, and it is training code: to move its function would make every trial stale.

    Raises:
        ValueError: no such file or package.
    """
    if weights is None:
        return None
    if Path(weights).suffix in WEIGHTS_SUFFIXES and (CHECKOUT / weights).is_file():
        return CHECKOUT / weights
    from dmlcore.models.weights import local_file  # here: it imports torch, two seconds

    return local_file(weights)
