"""Search groups: each data set x backbone x loss x variant of the grid is a search, with its part of the space."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dmlcore.config.base import ConfigError, canonical, parse
from dmlcore.config.search import ParameterConfig, SearchConfig
from dmlcore.config.sweep import SweepConfig
from dmlcore.config.trial import ComponentConfig, TrialConfig
from dmlcore.core.hashing import json_sha256
from dmlcore.sweep.grid import Cell, check_distinct, expand, variant_label
from dmlcore.sweep.score_margins import stand_in
from dmlcore.sweep.search.sampling import Space
from dmlcore.sweep.trial_key import trial_keys

REGULARIZERS, LOSS = "regularizers", "loss"


@dataclass(frozen=True)
class Group:
    """One search: cells of the grid that differ in their seed alone."""

    labels: Mapping[str, Any]
    """Data set, backbone, loss, variant."""
    config: TrialConfig
    """That of the first seed, where the search takes place."""
    seeds: tuple[int, ...]
    space: Space
    """The part of the space that these trials have; empty: there is one setting to try."""
    stop_early: bool
    """Whether early stopping may end its trials."""

    @property
    def name(self) -> str:
        return " ".join(map(str, self.labels.values()))

    def identity(self, search: SearchConfig, data_hash: str) -> str:
        """Hash what the suggestions depend on: space, objectives, sampler, and all that the trial keys cover.

        The number of trials is left out, so that raising it resumes the same search.
        """
        keys = trial_keys(self.cell(corners(self.space)[0], "searched", 0).config, data_hash)
        settings = {name: getattr(search, name) for name in ("objectives", "sampler", "startup", "seed")}
        space = {path: canonical(parameter) for path, parameter in self.space.items()}
        return json_sha256({"space": space, **settings, "keys": [keys.train, keys.eval]})[:16]

    def cell(self, params: Mapping[str, Any], role: str, number: int, seed: int | None = None) -> Cell:
        """Make the cell of a setting.

        Args:
            params: dotted path -> value.
            role: `searched`, `front` or `chosen`.
            number: of the suggestion.
            seed: None: that of the search. At another seed a trial is not stopped early: it is to be compared.

        Raises:
            ConfigError: the values break the schema.
        """
        values = with_values(canonical(self.config), params)
        if seed is not None:
            values["seed"] = seed
        config = parse(TrialConfig, values, f"search of [{self.name}]")
        labels = {**self.labels, "role": role, "ask": number, "seed": config.seed}
        stoppable = self.stop_early and config.seed == self.config.seed
        group = json_sha256(canonical(self.config)) if stoppable else None
        searched = {plain_path(path): value for path, value in params.items()}
        return Cell(labels, config, searched, group, {"search_seed": self.config.seed})


def search_groups(sweep: SweepConfig, search: SearchConfig) -> list[Group]:
    """Return the searches of a sweep, in the order of its grid.

    Raises:
        ConfigError: a cell breaks the schema, or a path of the space is in no trial.
    """
    found: dict[str, list[Cell]] = {}
    for cell in expand(
        sweep.model_copy(update={"longer_run": None})
    ):  # of the chosen setting, once there is one
        # By config too: two values of a further axis have the same labels and are two searches.
        config = cell.config.model_copy(update={"seed": 0})
        found.setdefault(repr((_without_seed(cell.labels), config)), []).append(cell)
    groups = [_group(cells, search, sweep.stop_early is not None) for cells in found.values()]
    if unused := sorted(set(search.space) - {path for group in groups for path in group.space}):
        raise ConfigError(
            "`sweep.search.space`: a path must belong to some variant's regulariser or to one of the losses, "
            f"got {unused}"
        )
    return groups


def _group(cells: list[Cell], search: SearchConfig, stop_early: bool) -> Group:
    first = cells[0]
    space = applicable_space(search.space, canonical(first.config))
    variant = variant_label(tuple(_without_searched(first.config.regularizers, space)))
    labels = _without_seed(first.labels) | {"variant": variant}
    return Group(labels, first.config, tuple(cell.seed for cell in cells), space, stop_early)


def _without_seed(labels: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in labels.items() if name != "seed"}


def _without_searched(parts: Sequence[ComponentConfig], space: Space) -> Iterator[ComponentConfig]:
    """Yield a variant's regularisers without searched parameters: these do not belong in the variant's name."""
    for number, part in enumerate(parts):
        paths = [f"{REGULARIZERS}.{key}.params." for key in (number, part.name)]
        params = {
            name: value
            for name, value in part.params.items()
            if not any(path + name in space for path in paths)
        }
        yield part.model_copy(update={"params": params})


def check_groups(
    groups: list[Group], check_cells: Callable[[list[Cell]], None], key: Callable[[Cell], str]
) -> None:
    """Check two opposite corners of each space before anything runs.

    Args:
        groups: the searches.
        check_cells: raises for a cell that cannot be built.
        key: returns the key of a cell's trial.

    Raises:
        ConfigError: a trial at a corner cannot be built, or two searches try the same trials.
    """
    cells = [[group.cell(point, "searched", 0) for point in corners(group.space)] for group in groups]
    check_cells([stand_in(cell) for pair in cells for cell in pair])
    lowest = [pair[0] for pair in cells]
    check_distinct([key(cell) for cell in lowest], lowest)


def corners(space: Space) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the points with every parameter at its lowest or first, and at its highest or last value."""
    low = {path: p.values[0] if p.values else p.low for path, p in space.items()}
    high = {path: p.values[-1] if p.values else p.high for path, p in space.items()}
    return low, high


def applicable_space(space: Space, values: Mapping[str, Any]) -> dict[str, ParameterConfig]:
    """Return the part of the space that a trial has: paths of a regulariser or loss that it lacks are left out.

    Paths of regularisers come last: samplers draw in this order, so that variants draw the same values for the settings
    that they share.

    Args:
        space: dotted config path -> where to look.
        values: a canonical TrialConfig. The schema judges any other path that it lacks.
    """

    def is_regularizer(path: str) -> bool:
        return path.split(".")[0] == REGULARIZERS

    def applies(path: str) -> bool:
        _, *keys = path.split(".")
        return bool(keys) and _index(values.get(REGULARIZERS, []), keys[0]) is not None

    def of_its_loss(path: str) -> bool:
        return _loss_name(path) in (None, values.get(LOSS, {}).get("name"))

    found = [path for path in space if (applies(path) if is_regularizer(path) else of_its_loss(path))]
    return {path: space[path] for path in sorted(found, key=is_regularizer)}


def _loss_name(path: str) -> str | None:
    """Return the loss whose path it is, `loss.NAME.params.x`; None: that of any, or of no loss."""
    section, _, rest = path.partition(".")
    name = rest.partition(".")[0]
    return name if section == LOSS and name not in ("name", "params") else None


def plain_path(path: str) -> str:
    """Return the path in a config: `loss.params.x` for `loss.NAME.params.x`."""
    name = _loss_name(path)
    return path if name is None else path.replace(f"{LOSS}.{name}.", f"{LOSS}.", 1)


def _index(parts: Sequence[Any], key: str) -> int | None:
    """Find the index in a list by number, or by the `name` of its part."""
    if key.isdigit():
        return int(key) if int(key) < len(parts) else None
    names = [part.get("name") if isinstance(part, Mapping) else None for part in parts]
    return names.index(key) if key in names else None


def with_values(values: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of nested `values` with each value of `params` at its dotted path; sections are added as needed.

    Raises:
        ConfigError: a path leads through a value that is not a section, or to no part of a list.
    """
    changed: Any = values
    for path, value in params.items():
        changed = _set(changed, plain_path(path).split("."), value, path)
    return dict(changed)


def _set(node: Any, keys: Sequence[str], value: Any, path: str) -> Any:
    if not keys:
        return value
    head, rest = keys[0], keys[1:]
    if isinstance(node, list):
        index = _index(node, head)
        if index is not None:
            return [*node[:index], _set(node[index], rest, value, path), *node[index + 1 :]]
    elif node is None or isinstance(node, Mapping):
        section = dict(node or {})
        return section | {head: _set(section.get(head), rest, value, path)}
    raise ConfigError(
        f"`sweep.search.space`: a path must lead to a setting of the trial, `{path}` ends at `{head}`"
    )
