"""The means of the terms of a loss over an epoch, and the error of one that is not finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FETCH_STEPS = 50
"""Steps after which the losses are fetched from a GPU, and a loss that is not finite ends the trial."""


class TrainingError(RuntimeError):
    """Training diverged: a loss or an embedding is not finite."""


class LossMeans:
    """Means of the terms of the loss over the steps of an epoch.

    On a GPU the values are fetched `FETCH_STEPS` steps at a time: each fetch makes the CPU wait for the GPU.
    """

    def __init__(self, device: torch.device, epoch: int, num_steps: int) -> None:
        self.epoch, self.num_steps, self.step = epoch, num_steps, 0
        self.fetch_steps = 1 if device.type == "cpu" else FETCH_STEPS
        self.names: list[str] = []
        self.waiting: list[Tensor] = []
        self.sums: dict[str, float] = {}

    def add(self, terms: dict[str, Tensor]) -> None:
        """Take the terms of the next step.

        Raises:
            TrainingError: the loss of this step, or of one not yet fetched, is not finite.
        """
        self.names = list(terms)
        self.waiting.append(torch.stack(list(terms.values())))
        if len(self.waiting) == self.fetch_steps:
            self._fetch()

    def means(self) -> dict[str, float]:
        if self.waiting:
            self._fetch()
        return self.sums

    def _fetch(self) -> None:
        for row in torch.stack(self.waiting).tolist():
            values = dict(zip(self.names, row, strict=True))
            if not math.isfinite(values["loss"]):
                place = f"epoch {self.epoch}, step {self.step}"
                raise TrainingError(f"train/loss must be finite, got {values} in {place}")
            for name, value in values.items():
                self.sums[name] = self.sums.get(name, 0.0) + value / self.num_steps
            self.step += 1
        self.waiting = []
