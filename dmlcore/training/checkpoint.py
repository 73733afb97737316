"""The checkpoint of a trial: how far it has come, and the tensors to resume from to the same bits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from dmlcore.training.store import TrialStore, state_copy
from dmlcore.training.trainer import Trainer

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
    def from_json(cls, values: dict[str, Any]) -> TrainingState:
        curve = [EpochReport(**report) for report in values.pop("curve")]
        return cls(**values, curve=curve)


def save_training_state(store: TrialStore, state: TrainingState, trainer: Trainer) -> None:
    """Write `last`: the training state, and the tensors of the model, of the objective and of the optimiser.

    One file for all: weights of one epoch never meet the optimiser of another.

    Raises:
        HeldStateError: the objective holds what cannot be stored.
    """
    tree, held = trainer.held.save()
    tensors = _under("model", state_copy(trainer.model)) | _under("held", held)
    tensors |= _under("parameters", dict(trainer.objective.named_parameters()))
    for number, values in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{key}": value for key, value in values.items() if value is not None}
    store.save_state("last", tensors, json.dumps({"state": asdict(state), "held": tree}))


@dataclass(frozen=True)
class Checkpoint:
    """What `last` holds beside the training state."""

    tensors: dict[str, Tensor]
    held: Any
    """JSON of what the objective holds outside its parameters."""

    def restore(self, trainer: Trainer) -> None:
        """Load it into model, objective and optimiser.

        Raises:
            HeldStateError: it does not fit the objective.
        """
        trainer.model.load_state_dict(self._part("model"))
        parameters = self._part("parameters")
        with torch.no_grad():
            for name, parameter in trainer.objective.named_parameters():
                parameter.copy_(parameters[name])
        trainer.held.load(self.held, self._part("held"), trainer.device)
        state: dict[int, dict[str, Tensor]] = {}
        for path, value in self._part("optimizer").items():
            number, key = path.split("/")
            state.setdefault(int(number), {})[key] = value
        # Learning rates are not restored: the schedule sets them before every step.
        groups = trainer.optimizer.state_dict()["param_groups"]
        trainer.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def _part(self, name: str) -> dict[str, Tensor]:
        prefix = f"{name}/"
        return {key.removeprefix(prefix): v for key, v in self.tensors.items() if key.startswith(prefix)}


def load_training_state(store: TrialStore) -> tuple[TrainingState, Checkpoint] | None:
    """Read `last`; None where it is missing or damaged, or `best` is missing."""
    found = store.load_state("last")
    if found is None:
        return None
    try:
        facts = json.loads(found[1])
        state, held = TrainingState.from_json(facts["state"]), facts["held"]
    except (ValueError, KeyError, TypeError):  # a checkpoint from an exchange may hold anything
        return None
    # `best` is written before `last`: without it, its epoch would have to be trained again.
    complete = not state.best_epoch or store.path("best").is_file()
    return (state, Checkpoint(found[0], held)) if complete else None


def _under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}/{key}": value for key, value in tensors.items()}
