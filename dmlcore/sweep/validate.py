"""Validation of cells: try every distinct loss and build every network of a sweep before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from dmlcore.config.base import ConfigError
from dmlcore.config.trial import ComponentConfig, TrialConfig
from dmlcore.sweep.grid import Cell
from dmlcore.sweep.plan_cache import PLAN_CACHE
from dmlcore.sweep.trial_key import weights_file

CHECK_WEIGHTS = "check_weights"


def check_cells(cells: list[Cell]) -> None:
    """Try every distinct loss and regulariser, and build every backbone on the meta device, which allocates no weights.

    What has passed once passes until the code or a library changes, and is not tried again.

    Raises:
        ConfigError: names the cell and what is wrong with it.
    """
    seen: set[tuple[str, str]] = set()
    for cell in cells:
        try:
            for name, text, config in _checks(cell.config):
                if (name, text) not in seen:
                    _check(name, text, config)
                seen.add((name, text))
        except ValueError as error:
            raise ConfigError(f"sweep cell [{cell.name}]: {error}") from error
    PLAN_CACHE.save()


def _checks(config: TrialConfig) -> Iterator[tuple[str, str, TrialConfig]]:
    """Yield what is to be checked of a trial: a function of `trial_checks`, what decides its outcome, the config."""
    train, width = config.train, config.model.embedding_dim
    parts = (config.loss, *config.regularizers)
    batch = (width, train.batch_size, train.images_per_class, train.batch_limit)
    yield "check_combination", _text(batch, *parts), config
    # Each part by itself: thousands of cells combine a few losses with a few regularisers.
    for part, alone in zip(parts, _apart(config), strict=True):
        if alone is not None:
            yield "check_objective", _text(part is config.loss, batch, part), alone
    network = _text(config.model, config.input, train.augmentation, train.chunk_size)
    yield "check_network", network, config
    if config.model.backbone.weights is not None:
        yield CHECK_WEIGHTS, config.model.backbone.weights, config


def _check(name: str, text: str, config: TrialConfig) -> None:
    if name == CHECK_WEIGHTS:  # of files, which come and go
        weights_file(config.model.backbone.weights)
        return

    def passes() -> bool:
        from dmlcore.sweep import (
            trial_checks,  # here: it imports torch, seconds that a check done before needs not
        )

        getattr(trial_checks, name)(config)
        return True

    PLAN_CACHE.answer(name, text, compute=passes)


def _apart(config: TrialConfig) -> list[TrialConfig | None]:
    """Return the trial with its loss alone, None where it has none, and with each of its regularisers alone."""
    none = ComponentConfig(name="none")
    loss = None if config.loss.name == "none" else config.model_copy(update={"regularizers": ()})
    found = [
        config.model_copy(update={"loss": none, "regularizers": (part,)}) for part in config.regularizers
    ]
    return [loss, *found]


def _text(*parts: Any) -> str:
    # pydantic's own JSON: its `repr` takes ten times as long
    return "\n".join(part.model_dump_json() if isinstance(part, BaseModel) else repr(part) for part in parts)
