"""Margins from a model's own scores: a regulariser's parameter given as a rate, resolved when the base has finished.

The base of a trial is the same cell without its regularisers. `{share_of_positives: 0.5}` is the similarity below which
that share of the base's positive pairs lies, `{share_of_negatives: 0.01}` the one that this share of its negative pairs
reaches: the false-accept rate of a threshold there. Pairs are those of the validation classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dmlcore.config.base import ConfigError, canonical
from dmlcore.config.trial import TrialConfig
from dmlcore.records import TrialRecord, flatten
from dmlcore.sweep.grid import Cell
from dmlcore.sweep.margin_rates import STAND_IN, Rate, rates_of
from dmlcore.sweep.plan import PlannedTrial, WaitingTrial
from dmlcore.sweep.validate import check_cells

NAME, NOTE = "regularizers", "regularizers_as_given"
"""Section of a config, and the column of the table of trials that has the rates where the config has the numbers."""
SOURCE = "scores"
"""Entry of a record's hashes that names the base and its embeddings."""


def with_margins(cell: Cell, margins: Mapping[Rate, float]) -> Cell:
    """Return the cell with a number for each rate; its labels keep the rates."""
    parts = [part.model_dump() for part in cell.config.regularizers]
    # As the table writes the config of a trial that still waits
    given = flatten(canonical(cell.config))[NAME]
    for rate, margin in margins.items():
        parts[rate.place]["params"] = {**parts[rate.place]["params"], rate.parameter: margin}
    config = TrialConfig.model_validate_json(json.dumps(canonical(cell.config) | {NAME: parts}))
    return replace(cell, config=config, notes={**cell.notes, NOTE: given})


def stand_in(cell: Cell) -> Cell:
    """Return the cell with likely margins in place of its rates, if it has any, to check that it can be built."""
    rates = rates_of(cell)
    return with_margins(cell, {rate: STAND_IN[rate.kind] for rate in rates}) if rates else cell


def with_source(trial: PlannedTrial, source: Mapping[str, str]) -> PlannedTrial:
    """Return the trial whose record will name its base; the key stays."""
    return replace(trial, keys=replace(trial.keys, inputs={**trial.keys.inputs, SOURCE: dict(source)}))


def base_config(cell: Cell) -> TrialConfig:
    """Return the config of the trial whose scores give the margins."""
    return cell.config.model_copy(update={"regularizers": ()})


@dataclass
class Resolver:
    """Turns cells with rates into trials, as far as their bases have finished.

    Args:
        planner: gives keys and paths.
        recorded: every record of the study by key.
    """

    planner: Callable[[Cell], PlannedTrial]
    recorded: Mapping[str, TrialRecord]
    _known: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A trial that has its record keeps its margins, though the embeddings of its base may be gone since.
        for record in self.recorded.values():
            if source := record.hashes.get(SOURCE):
                self._known[_identity(record.labels, source["validation"])] = record.config

    def __call__(self, cell: Cell, base: PlannedTrial) -> PlannedTrial | WaitingTrial:
        """Plan a cell, or say what it waits for.

        Args:
            cell: with rates.
            base: the trial that gives its scores.
        """
        record = self.recorded.get(base.key)
        if record is None:
            return WaitingTrial(cell, f"waits for [{base.name}]")
        if record.status != "finished":
            return WaitingTrial(cell, f"its base [{base.name}] {record.status}: {record.error}", failed=True)
        digest = record.files.get("validation", "")
        from dmlcore.sweep.pair_scores import margins_from_scores  # here: they import torch
        from dmlcore.training.store import DamagedFileError

        rates, known = rates_of(cell), self._known.get(_identity(cell.labels, digest))
        try:
            if known is not None:
                margins = {r: float(known[NAME][r.place]["params"][r.parameter]) for r in rates}
            else:
                margins = margins_from_scores(tuple(rates), base.store_folder, digest)
            resolved = with_margins(cell, margins)
            check_cells([resolved])
            trial = self.planner(resolved)
        except (DamagedFileError, ConfigError) as error:
            return WaitingTrial(cell, f"no margins from [{base.name}]: {error}", failed=True)
        return with_source(trial, {"trial": base.key, "validation": digest})


def _identity(labels: Mapping[str, Any], digest: str) -> str:
    return json.dumps([sorted((k, v) for k, v in labels.items() if k not in ("role", "ask")), digest])


def resolve(
    cells: Iterable[Cell], bases: Iterable[PlannedTrial], resolver: Resolver
) -> Iterator[PlannedTrial | WaitingTrial]:
    """Plan cells with rates, each with the base of the same settings and seed among `bases`.

    Raises:
        ConfigError: a cell has no base.
    """
    by_config = {repr(base.cell.config): base for base in bases}
    keys = {base.key: base.name for base in bases}
    for cell in cells:
        base = by_config.get(repr(base_config(cell)))
        if base is None:
            raise ConfigError(
                f"sweep cell [{cell.name}]: its margins come from the scores of the same trial without regularisers, "
                "which is in no grid: add [] to `regularizers`, or give the margins as numbers"
            )
        found = resolver(cell, base)
        if isinstance(found, PlannedTrial) and keys.setdefault(found.key, found.name) != found.name:
            reason = f"its margins are those of [{keys[found.key]}], the same trial: remove one of the two"
            found = WaitingTrial(cell, reason, failed=True)
        yield found
