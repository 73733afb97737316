"""Margins from a model's own scores: a regulariser's parameter given as a rate, resolved when the base has finished.

The base of a trial is the same cell without its regularisers. `{share_of_positives: 0.5}` is the similarity below which
that share of the base's positive pairs lies, `{share_of_negatives: 0.01}` the one that this share of its negative pairs
reaches: the false-accept rate of a threshold there. Pairs are those of the validation classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from dmlcore.config.base import ConfigError, canonical
from dmlcore.config.trial import TrialConfig
from dmlcore.metrics.pairwise.order_statistics import bin_of_rank, share_count
from dmlcore.records import TrialRecord, flatten
from dmlcore.sweep.grid import Cell
from dmlcore.sweep.plan import PlannedTrial, WaitingTrial
from dmlcore.sweep.validate import check_cells
from dmlcore.training.store import DamagedFileError, TrialStore

POSITIVES, NEGATIVES = "share_of_positives", "share_of_negatives"
STAND_IN = {POSITIVES: 0.8, NEGATIVES: 0.4}
"""Margins with which a cell is checked before its own are known."""
DECIMALS = 4
"""Of a resolved margin: a person can copy it, and the last bits of a product do not change a trial's key."""
STEPS = 1_000_000
"""Similarities are counted in steps of 1 / STEPS."""
ROWS = 512
NAME, NOTE = "regularizers", "regularizers_as_given"
"""Section of a config, and the column of the table of trials that has the rates where the config has the numbers."""
SOURCE = "scores"
"""Entry of a record's hashes that names the base and its embeddings."""


class Rate(NamedTuple):
    """A parameter of a regulariser that is given as a rate."""

    place: int
    """Of the regulariser."""
    parameter: str
    kind: str
    share: float

    @property
    def path(self) -> str:
        """`PLACE.PARAMETER`, as the log of a search names it."""
        return f"{self.place}.{self.parameter}"


def rates_of(cell: Cell) -> list[Rate]:
    """Return the parameters of a cell that are given as rates.

    Raises:
        ConfigError: a parameter names more than a rate, or a share that is not between 0 and 1.
    """
    found = []
    for place, part in enumerate(cell.config.regularizers):
        for name, value in part.params.items():
            if not isinstance(value, dict) or not value.keys() & STAND_IN.keys():
                continue
            entry: tuple[str, Any] = next(iter(value.items()))
            kind, share = entry
            number = isinstance(share, int | float) and not isinstance(share, bool)
            if len(value) != 1 or not number or not 0.0 < share < 1.0:
                raise ConfigError(
                    f"sweep cell [{cell.name}]: `{part.name}.{name}` must be a number, {{{POSITIVES}: s}} or "
                    f"{{{NEGATIVES}: s}} with s in (0, 1), got {value}"
                )
            found.append(Rate(place, name, kind, float(share)))
    return found


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


@lru_cache(maxsize=4096)
def margins_from_scores(rates: tuple[Rate, ...], folder: Path, digest: str) -> dict[Rate, float]:
    """Return the margin at each rate, rounded to DECIMALS, from stored validation embeddings; cached for later plans.

    Args:
        rates: what to resolve.
        folder: of the base's files.
        digest: sha256 of its validation embeddings.

    Raises:
        DamagedFileError: the embeddings are missing, were changed, or have no pair of a kind.
    """
    stored = TrialStore(folder, {"validation": digest}).load("validation")
    found = count_pairs(stored["embeddings"], stored["labels"], stored.get("groups"))
    counts = dict(zip((POSITIVES, NEGATIVES), found, strict=True))
    return {rate: _margin(rate, counts[rate.kind], folder) for rate in rates}


def _margin(rate: Rate, counts: NDArray[np.int64], folder: Path) -> float:
    total = int(counts.sum())
    if not total:
        raise DamagedFileError(f"{folder} has no pair of validation images for {rate.kind}")
    # An order statistic: the ceil(s M)-th largest of the negatives, the ceil(s P)-th smallest of the positives.
    rank = share_count(rate.share, total)
    place, _ = bin_of_rank(counts, rank if rate.kind == NEGATIVES else total + 1 - rank)
    return min(1.0, max(-1.0, round(place / STEPS - 1.0, DECIMALS)))


def count_pairs(
    embeddings: Tensor, labels: Tensor, groups: Tensor | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the pairs of images by cosine similarity, in steps of 1 / STEPS from -1 to 1.

    Args:
        embeddings: [N, D], of any length.
        labels: [N].
        groups: [N]; two images of one class and one group are no pair.

    Returns:
        Positive pairs and negative pairs, [2 STEPS + 1] each.
    """
    # float64: sums in another order, on another processor, then differ by 1e-16 and not by a step
    vectors, bins = normalize(embeddings.double(), dim=1), 2 * STEPS + 1
    positives, negatives = (torch.zeros(bins, dtype=torch.int64) for _ in range(2))
    for start in range(0, len(vectors), ROWS):
        rows = slice(start, start + ROWS)
        steps = ((vectors[rows] @ vectors[start:].T + 1.0) * STEPS).round().long().clamp_(0, bins - 1)
        same = labels[rows, None] == labels[None, start:]
        later = torch.ones_like(same).triu(diagonal=1)
        counted = same & later
        if groups is not None:
            counted &= groups[rows, None] != groups[None, start:]
        positives += torch.bincount(steps[counted], minlength=bins)
        negatives += torch.bincount(steps[later & ~same], minlength=bins)
    return positives.numpy(), negatives.numpy()
