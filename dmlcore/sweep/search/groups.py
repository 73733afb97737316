"""What is searched apart: each data set x backbone x loss x variant of the grid, with its part of the space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dmlcore.config.base import ConfigError, canonical, parse
from dmlcore.config.sweep import SearchConfig, SweepConfig
from dmlcore.config.trial import TrialConfig
from dmlcore.core.hashing import json_sha256
from dmlcore.sweep.grid import Cell, check_distinct, expand, variant_label
from dmlcore.sweep.search.space import Space, applicable, ends, put, unsearched
from dmlcore.sweep.trial_key import trial_keys


@dataclass(frozen=True)
class Group:
    """One search: cells of the grid that differ in their seed alone."""

    labels: Mapping[str, Any]
    """Data set, backbone, loss, variant."""
    config: TrialConfig
    """Of the first seed, where the search takes place."""
    seeds: tuple[int, ...]
    space: Space
    """The part of the space that these trials have; empty: there is one setting to try."""
    stops: bool
    """Whether early stopping may end its trials."""

    @property
    def name(self) -> str:
        return " ".join(map(str, self.labels.values()))

    def identity(self, search: SearchConfig, data_hash: str) -> str:
        """What makes the search another one: space, objectives, sampler, and all that its trials rest on."""
        keys = trial_keys(self.cell(ends(self.space)[0], "searched", 0).config, data_hash)
        asks = {name: getattr(search, name) for name in ("objectives", "sampler", "startup", "seed")}
        space = {path: canonical(parameter) for path, parameter in self.space.items()}
        return json_sha256({"space": space, **asks, "keys": [keys.train, keys.eval]})[:16]

    def cell(self, point: Mapping[str, Any], role: str, ask: int, seed: int | None = None) -> Cell:
        """The cell of a setting.

        Args:
            point: dotted path -> value.
            role: `searched`, `front` or `chosen`.
            ask: the number of the ask that gave it.
            seed: None: that of the search; at any other seed it is not stopped early.

        Raises:
            ConfigError: the values break the schema.
        """
        values = put(canonical(self.config), point)
        if seed is not None:
            values["seed"] = seed
        config = parse(TrialConfig, values, f"search of [{self.name}]")
        labels = {**self.labels, "role": role, "ask": ask, "seed": config.seed}
        stopped = self.stops and config.seed == self.config.seed
        return Cell(
            labels, config, dict(point), rivals=json_sha256(canonical(self.config)) if stopped else None
        )


def search_groups(sweep: SweepConfig, search: SearchConfig) -> list[Group]:
    """The searches of a sweep, in the order of its grid.

    Raises:
        ConfigError: a cell breaks the schema, or a path of the space is in no trial.
    """
    found: dict[str, list[Cell]] = {}
    for cell in expand(sweep):
        labels = {name: value for name, value in cell.labels.items() if name != "seed"}
        config = cell.config.model_copy(update={"seed": 0})
        found.setdefault(repr((labels, config)), []).append(cell)
    groups = [_group(cells, search, sweep.stop_early is not None) for cells in found.values()]
    if unused := sorted(set(search.space) - {path for group in groups for path in group.space}):
        raise ConfigError(f"`sweep.search.space`: a path must be of some variant's regulariser, got {unused}")
    return groups


def _group(cells: list[Cell], search: SearchConfig, stops: bool) -> Group:
    first = cells[0]
    labels = {name: value for name, value in first.labels.items() if name != "seed"}
    space = applicable(search.space, canonical(first.config))
    labels["variant"] = variant_label(tuple(unsearched(first.config.regularizers, space)))
    return Group(labels, first.config, tuple(cell.seed for cell in cells), space, stops)


def check_groups(
    groups: list[Group], check_cells: Callable[[list[Cell]], None], key: Callable[[Cell], str]
) -> None:
    """Try both ends of each space before anything runs.

    Args:
        groups: the searches.
        check_cells: raises for a cell that cannot be built.
        key: of a cell's trial.

    Raises:
        ConfigError: a trial at an end of a space cannot be built; two searches look at the same trials.
    """
    corners = [[group.cell(point, "searched", 0) for point in ends(group.space)] for group in groups]
    check_cells([cell for pair in corners for cell in pair])
    lowest = [pair[0] for pair in corners]
    check_distinct([key(cell) for cell in lowest], lowest)
