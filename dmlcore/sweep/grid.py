"""The grid of a sweep: a section of params.yaml as cells, each with the full config of one trial."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import product
from typing import Any, NamedTuple

from dmlcore.config.base import ConfigError, parse
from dmlcore.config.sweep import LONGER_ROLE, GridConfig, SweepConfig, overlaid
from dmlcore.config.trial import ComponentConfig, TrialConfig
from dmlcore.records import trial_name


@dataclass(frozen=True)
class Cell:
    """A point of the grid as one trial: its labels (data set, backbone, loss, variant, seed) and its config."""

    labels: dict[str, Any]
    config: TrialConfig
    searched: dict[str, Any] = field(default_factory=dict)
    """Dotted path -> value, of the settings that a search varies."""
    comparison_group: str | None = None
    """Early stopping ranks a trial among those of the same group; None: it always runs to its last epoch."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Further columns of the table of trials, which are in no key, record or name."""

    @property
    def name(self) -> str:
        return trial_name(self.labels)

    @property
    def seed(self) -> int:
        return self.config.seed


class _Point(NamedTuple):
    """One choice along each dimension of a grid."""

    seed: int
    dataset: str
    backbone: str
    loss: str
    variant: tuple[ComponentConfig, ...]
    axes: dict[str, Any]
    """Dotted path -> value."""

    @property
    def labels(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "backbone": self.backbone,
            "loss": self.loss,
            "variant": variant_label(self.variant),
            "seed": self.seed,
        }


def expand(sweep: SweepConfig) -> list[Cell]:
    """Return all cells of a sweep: those of `longer_run`, then by priority, as params.yaml has them, seeds outermost.

    Seeds come outermost so that an unfinished sweep has results of every combination before it repeats one.

    Raises:
        ConfigError: a cell's config breaks the schema; the message names the cell.
    """
    _check_labels(sweep)
    points: list[_Point] = []
    earlier: set[str] = set()
    for grid in sweep.grids or (GridConfig(),):
        # Grids may overlap: a point counts once. Repeats within one grid stay, for `check_distinct` to report.
        found = [(repr(point), point) for point in _points(sweep, grid)]
        points += [point for text, point in found if text not in earlier]
        earlier |= {text for text, _ in found}
    ordered = sorted(
        points, key=lambda point: (rank(sweep.priority, point.labels), _seed_order(sweep, point.seed))
    )
    cells = list(map(_CellMaker(sweep), ordered))
    # The longest first: at the end one core would wait for them.
    return cells if sweep.longer_run is None else [*longer_cells(cells, sweep.longer_run.factor), *cells]


def longer_cells(cells: Sequence[Cell], factor: float) -> list[Cell]:
    """Return the first baseline of each data set and backbone, or its first cell, as a trial that trains longer."""
    first: dict[tuple[str, str], Cell] = {}
    for cell in sorted(cells, key=lambda cell: bool(cell.config.regularizers)):
        first.setdefault((cell.labels["dataset"], cell.labels["backbone"]), cell)
    configs = [cell.config for cell in cells]
    found = [as_longer(cell, factor) for cell in first.values()]
    return [cell for cell in found if cell.config not in configs]


def as_longer(cell: Cell, factor: float) -> Cell:
    """Return the cell with `factor` times the epochs, its milestones moved as much; never stopped early."""
    train = cell.config.train
    milestones = tuple(round(factor * epoch) for epoch in train.schedule.milestones)
    schedule = train.schedule.model_copy(update={"milestones": milestones})
    train = train.model_copy(update={"epochs": round(factor * train.epochs), "schedule": schedule})
    config = cell.config.model_copy(update={"train": train})
    labels = {**cell.labels, "role": LONGER_ROLE, "seed": cell.labels["seed"]}
    return replace(cell, labels=labels, config=config, comparison_group=None)


def _points(sweep: SweepConfig, grid: GridConfig) -> Iterator[_Point]:
    axes = sweep.axes if grid.axes is None else grid.axes
    dimensions = (
        sweep.seeds if grid.seeds is None else grid.seeds,
        sweep.datasets if grid.datasets is None else grid.datasets,
        sweep.backbones if grid.backbones is None else _checked(grid.backbones, sweep.backbones, "backbones"),
        sweep.losses if grid.losses is None else _checked(grid.losses, sweep.losses, "losses"),
        sweep.regularizers if grid.regularizers is None else grid.regularizers,
        [dict(zip(axes, values, strict=True)) for values in product(*axes.values())],
    )
    return map(_Point._make, product(*dimensions))


def rank(priority: Sequence[Mapping[Any, str]], labels: Mapping[str, Any]) -> int:
    """Return the place of a cell in the queue: of the first entry of `sweep.priority` that it matches, 0 first."""
    matching = (place for place, where in enumerate(priority) if where.items() <= labels.items())
    return next(matching, len(priority))


def _seed_order(sweep: SweepConfig, seed: int) -> tuple[bool, int]:
    return (seed not in sweep.seeds, sweep.seeds.index(seed) if seed in sweep.seeds else seed)


def _checked(labels: tuple[str, ...], known: Mapping[str, Any], where: str) -> tuple[str, ...]:
    if unknown := [label for label in labels if label not in known]:
        raise ConfigError(f"`sweep.grids`: {where} must be among {sorted(known)}, got {unknown}")
    return labels


def _check_labels(sweep: SweepConfig) -> None:
    """Refuse an override or priority that matches no cell: it would be a setting that silently does nothing."""
    known = {"dataset": set(sweep.datasets), "backbone": set(sweep.backbones), "loss": set(sweep.losses)}
    known["dataset"] |= {name for grid in sweep.grids for name in grid.datasets or ()}
    given = [("overrides", override.where) for override in sweep.overrides]
    given += [("priority", where) for where in sweep.priority]
    for section, where in given:
        for label, value in where.items():
            if value not in known[label]:
                raise ConfigError(
                    f"`sweep.{section}`: {label} must be among {sorted(known[label])}, got {value!r}"
                )


class _CellMaker:
    """Makes the cells of a sweep; what cells share is merged and validated once, for a study may have thousands."""

    def __init__(self, sweep: SweepConfig) -> None:
        self.sweep = sweep
        self._layers: dict[tuple[str, ...], dict[str, Any]] = {}
        self._configs: dict[str, TrialConfig] = {}  # by the JSON of all values but the seed

    def __call__(self, point: _Point) -> Cell:
        labels = point.labels
        values = self._layered(labels)
        for path, value in point.axes.items():
            values = overlaid(values, _nested(path, value))
        regularizers = [part.model_dump() for part in point.variant]
        values = values | {"dataset": point.dataset, "seed": 0, "regularizers": regularizers}
        where = "sweep cell " + " ".join(str(label) for label in labels.values())
        if "processes" in values:
            raise ConfigError(
                f"{where}: `processes` is set by `sweep.resources.processes` or `.gpus`; move it there"
            )
        if self.sweep.resources.processes_per_trial > 1:
            values["processes"] = self.sweep.resources.processes_per_trial
        text = json.dumps(values)
        if text not in self._configs:
            self._configs[text] = parse(TrialConfig, values, where)
        config = self._configs[text].model_copy(update={"seed": point.seed})
        group = _comparison_group(point) if self.sweep.stop_early else None
        return Cell(labels, config, comparison_group=group)

    def _layered(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Merge from the general to the specific: each layer replaces what it names of those before it."""
        sweep, place = self.sweep, (labels["dataset"], labels["backbone"], labels["loss"])
        if place not in self._layers:
            layers = [sweep.trial, sweep.backbones[labels["backbone"]], sweep.losses[labels["loss"]]]
            layers += [other.set for other in sweep.overrides if other.where.items() <= labels.items()]
            self._layers[place] = reduce(overlaid, layers)
        return self._layers[place]


def _comparison_group(point: _Point) -> str:
    """Name the trials that early stopping ranks together: same labels and kind of variant, other parameters.

    Variants are not ranked against each other, nor seeds: which of them run to the end must not depend on the
    comparison that the study is about.
    """
    shared = {name: value for name, value in point.labels.items() if name != "variant"}
    return trial_name({"family": "+".join(part.name for part in point.variant), **shared})


def variant_label(variant: tuple[ComponentConfig, ...]) -> str:
    """Return `baseline` for no regulariser, else e.g. `tcm(negative_margin=0.5,positive_margin=0.9)`."""
    return "+".join(_component_label(part) for part in variant) or "baseline"


def _component_label(part: ComponentConfig) -> str:
    arguments = ",".join(f"{key}={_value_label(value)}" for key, value in sorted(part.params.items()))
    return f"{part.name}({arguments})" if arguments else part.name


def _value_label(value: Any) -> str:
    """Return a parameter as text; one that is given as a rate as `share_of_negatives:0.01`."""
    if isinstance(value, Mapping):
        return "+".join(f"{kind}:{_value_label(share)}" for kind, share in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _nested(path: str, value: Any) -> dict[str, Any]:
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def check_distinct(keys: list[str], cells: list[Cell]) -> None:
    """Refuse a sweep in which two cells are the same trial.

    Raises:
        ConfigError: names both cells.
    """
    seen: dict[str, Cell] = {}
    for key, cell in zip(keys, cells, strict=True):
        if (first := seen.setdefault(key, cell)) is not cell:
            raise ConfigError(
                f"the cells [{first.name}] and [{cell.name}] are one and the same trial: remove the repeated seed, "
                "margin or label"
            )
