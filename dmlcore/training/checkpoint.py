"""The checkpoint of a trial: how far it has come, and the tensors to resume from to the same bits."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from dmlcore.training.store import TrialStore, state_copy

Phase = Literal["selection", "final"]


@dataclass(frozen=True)
class EpochReport:
    """What is known after an epoch (0: the untrained network): metrics by their path."""

    epoch: int
    metrics: dict[str, float]


@dataclass
class TrainingState:
    """The epochs of a trial so far. Every draw is keyed by (seed, purpose, epoch), so no random state is stored."""

    phase: Phase = "selection"
    epoch: int = 0
    """The last completed epoch of the phase."""
    best_score: float = -1.0
    best_epoch: int = 0
    curve: list[EpochReport] = field(default_factory=list)
    untrained_test: dict[str, float] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """Name of each file that the trial has stored -> its sha256."""

    @classmethod
    def from_json(cls, text: str) -> TrainingState:
        values = json.loads(text)
        curve = [EpochReport(**report) for report in values.pop("curve")]
        return cls(**values, curve=curve)


def save_training_state(
    store: TrialStore, state: TrainingState, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer
) -> None:
    """Write `last`: the training state, and the tensors of each module and of the optimiser.

    One file for all: weights of one epoch never meet the optimiser of another.
    """
    tensors = {
        f"{name}/{key}": value
        for name, module in modules.items()
        for key, value in state_copy(module).items()
    }
    for number, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{key}": value for key, value in values.items() if value is not None}
    store.save_state("last", tensors, json.dumps(asdict(state)))


def load_training_state(store: TrialStore) -> tuple[TrainingState, dict[str, Tensor]] | None:
    """Read `last`: the training state and its tensors; None where it is missing or damaged, or `best` is missing."""
    found = store.load_state("last")
    if found is None:
        return None
    try:
        state = TrainingState.from_json(found[1])
    except (ValueError, KeyError, TypeError):  # a checkpoint from an exchange may hold anything
        return None
    # `best` is written before `last`: without it, its epoch would have to be trained again.
    complete = not state.best_epoch or store.path("best").is_file()
    return (state, found[0]) if complete else None


def restore(
    tensors: dict[str, Tensor], modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer
) -> None:
    """Load the tensors of `last` into modules and optimiser."""
    for name, module in modules.items():
        module.load_state_dict(_with_prefix(tensors, f"{name}/"))
    state: dict[int, dict[str, Tensor]] = {}
    for path, value in _with_prefix(tensors, "optimizer/").items():
        number, key = path.split("/")
        state.setdefault(int(number), {})[key] = value
    # Learning rates are not restored: the schedule sets them before every step.
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
