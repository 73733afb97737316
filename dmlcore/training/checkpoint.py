"""The checkpoint of a trial: its progress, and the tensors from which it resumes bit for bit."""

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
    """The metrics after an epoch (0: the untrained network), by their path."""

    epoch: int
    metrics: dict[str, float]


@dataclass
class TrainingState:
    """The progress of a trial. Random numbers are keyed by (seed, purpose, epoch), so no generator state is stored."""

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
    """Write `last`: the training state, and the tensors of the model, the objective and the optimiser.

    All are in one file, so that the weights and the optimiser state are always of the same epoch.

    Raises:
        LossStateError: the objective keeps state that cannot be stored.
    """
    loss_state, loss_tensors = trainer.loss_state.save()
    tensors = _under("model", state_copy(trainer.model)) | _under("loss_state", loss_tensors)
    tensors |= _under("parameters", dict(trainer.objective.named_parameters()))
    for number, values in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{key}": value for key, value in values.items() if value is not None}
    store.save_state("last", tensors, json.dumps({"state": asdict(state), "loss_state": loss_state}))


@dataclass(frozen=True)
class Checkpoint:
    """The content of `last`, except the training state."""

    tensors: dict[str, Tensor]
    loss_state: Any
    """The state of the objective outside its parameters, as JSON values."""

    def restore(self, trainer: Trainer) -> None:
        """Load the checkpoint into the model, the objective and the optimiser.

        Raises:
            LossStateError: the state does not match the objective.
        """
        trainer.model.load_state_dict(self._part("model"))
        parameters = self._part("parameters")
        with torch.no_grad():
            for name, parameter in trainer.objective.named_parameters():
                parameter.copy_(parameters[name])
        trainer.loss_state.load(self.loss_state, self._part("loss_state"), trainer.device)
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
    """Read `last`; return None if it is missing or damaged, or if `best` is missing."""
    found = store.load_state("last")
    if found is None:
        return None
    try:
        facts = json.loads(found[1])
        state, loss_state = TrainingState.from_json(facts["state"]), facts["loss_state"]
    except (ValueError, KeyError, TypeError):  # a checkpoint from shared storage is untrusted
        return None
    # `best` is written before `last`. If it is missing, training starts again.
    complete = not state.best_epoch or store.path("best").is_file()
    return (state, Checkpoint(found[0], loss_state)) if complete else None


def _under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}/{key}": value for key, value in tensors.items()}
