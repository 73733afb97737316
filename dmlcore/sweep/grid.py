"""A sweep's section of params.yaml -> its cells, each with the full config of one trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from dmlcore.config.base import ConfigError, parse
from dmlcore.config.sweep import GridConfig, SweepConfig
from dmlcore.config.trial import ComponentConfig, TrialConfig
from dmlcore.records import trial_name


@dataclass(frozen=True)
class Cell:
    """One trial of a sweep: its labels (data set, backbone, loss, variant, seed) and its config."""

    labels: dict[str, Any]
    config: TrialConfig
    searched: dict[str, Any] = field(default_factory=dict)
    """Dotted path -> value, of what a search varies."""
    rivals: str | None = None
    """Those among whom early stopping ranks it share this name; None: it runs to its last epoch."""

    @property
    def name(self) -> str:
        """As `records.trial_name`."""
        return trial_name(self.labels)

    @property
    def seed(self) -> int:
        return self.config.seed


def expand(sweep: SweepConfig) -> list[Cell]:
    """All cells of a sweep, in the order of params.yaml, seeds outermost so that early results cover every cell.

    Raises:
        ConfigError: a cell's config breaks the schema; the message names the cell.
    """
    _check_overrides(sweep)
    points: list[Point] = []
    for grid in sweep.grids or (GridConfig(),):
        earlier = {repr(point) for point in points}
        points += [point for point in _points(sweep, grid) if repr(point) not in earlier]
    ordered = sorted(points, key=lambda point: _seed_order(sweep, point[0]))
    return [_cell(sweep, *point) for point in ordered]


Point = tuple[int, str, str, str, tuple[ComponentConfig, ...], dict[str, Any]]


def _points(sweep: SweepConfig, grid: GridConfig) -> Iterator[Point]:
    yield from product(
        sweep.seeds if grid.seeds is None else grid.seeds,
        sweep.datasets if grid.datasets is None else grid.datasets,
        sweep.backbones if grid.backbones is None else _known(grid.backbones, sweep.backbones, "backbones"),
        sweep.losses if grid.losses is None else _known(grid.losses, sweep.losses, "losses"),
        sweep.regularizers if grid.regularizers is None else grid.regularizers,
        _axis_points(sweep.axes if grid.axes is None else grid.axes),
    )


def _seed_order(sweep: SweepConfig, seed: int) -> tuple[bool, int]:
    return (seed not in sweep.seeds, sweep.seeds.index(seed) if seed in sweep.seeds else seed)


def _known(labels: tuple[str, ...], known: Mapping[str, Any], where: str) -> tuple[str, ...]:
    if unknown := [label for label in labels if label not in known]:
        raise ConfigError(f"`sweep.grids`: {where} must be among {sorted(known)}, got {unknown}")
    return labels


def _check_overrides(sweep: SweepConfig) -> None:
    """An override that no cell has would be a setting that silently does nothing."""
    known = {"dataset": set(sweep.datasets), "backbone": set(sweep.backbones), "loss": set(sweep.losses)}
    known["dataset"] |= {name for grid in sweep.grids for name in grid.datasets or ()}
    for override in sweep.overrides:
        for label, value in override.where.items():
            if value not in known[label]:
                raise ConfigError(
                    f"`sweep.overrides`: {label} must be among {sorted(known[label])}, got {value!r}"
                )


def _axis_points(axes: Mapping[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def _cell(
    sweep: SweepConfig,
    seed: int,
    dataset: str,
    backbone: str,
    loss: str,
    variant: tuple[ComponentConfig, ...],
    point: dict[str, Any],
) -> Cell:
    labels = {
        "dataset": dataset,
        "backbone": backbone,
        "loss": loss,
        "variant": variant_label(variant),
        "seed": seed,
    }
    values = merge(merge(sweep.trial, sweep.backbones[backbone]), sweep.losses[loss])
    for override in sweep.overrides:
        if all(labels[label] == value for label, value in override.where.items()):
            values = merge(values, override.set)
    for path, value in point.items():
        values = merge(values, _nested(path, value))
    values = merge(
        values, {"dataset": dataset, "seed": seed, "regularizers": [part.model_dump() for part in variant]}
    )
    where = "sweep cell " + " ".join(str(label) for label in labels.values())
    rivals = None if sweep.stop_early is None else _rivals(labels, variant)
    return Cell(labels, parse(TrialConfig, values, where), rivals=rivals)


def _rivals(labels: Mapping[str, Any], variant: tuple[ComponentConfig, ...]) -> str:
    """Variants are not set against each other, nor seeds: which of them end whole must not depend on what is compared."""
    shared = {name: value for name, value in labels.items() if name != "variant"}
    return trial_name({"family": "+".join(part.name for part in variant), **shared})


def variant_label(variant: tuple[ComponentConfig, ...]) -> str:
    """`baseline` for no regulariser, else e.g. `tcm(negative_margin=0.5,positive_margin=0.9)`."""
    return "+".join(_component_label(part) for part in variant) or "baseline"


def _component_label(part: ComponentConfig) -> str:
    arguments = ",".join(f"{key}={_text(value)}" for key, value in sorted(part.params.items()))
    return f"{part.name}({arguments})" if arguments else part.name


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`: sections merge, everything else is replaced; neither is changed."""
    merged = deepcopy(dict(base))
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else deepcopy(value)
    return merged


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
        if key in seen:
            raise ConfigError(
                f"each cell of the sweep must be another trial; [{seen[key].name}] and [{cell.name}] are one and the "
                "same: remove the repeated seed, margin or label"
            )
        seen[key] = cell
