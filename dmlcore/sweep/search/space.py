"""The search space of a data set x backbone x loss x variant: which paths it has, and a config with values put there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dmlcore.config.base import ConfigError
from dmlcore.config.sweep import ParameterConfig
from dmlcore.config.trial import ComponentConfig

REGULARIZERS = "regularizers"
Space = Mapping[str, ParameterConfig]


def applicable(space: Space, values: Mapping[str, Any]) -> dict[str, ParameterConfig]:
    """The part of the space that a trial has: paths of a regulariser that it lacks are left out.

    Those of regularisers come last: samplers draw in this order, so that variants draw alike what they share.

    Args:
        space: dotted config path -> where to look.
        values: a canonical TrialConfig. Any other path that it lacks is the schema's to judge.
    """
    found = [path for path in space if _reachable(values, path.split("."))]
    return {path: space[path] for path in sorted(found, key=lambda path: path.startswith(f"{REGULARIZERS}."))}


def _reachable(values: Mapping[str, Any], keys: Sequence[str]) -> bool:
    if keys[0] != REGULARIZERS:
        return True
    return len(keys) > 1 and _place(values.get(REGULARIZERS, []), keys[1]) is not None


def _place(parts: Sequence[Any], key: str) -> int | None:
    """Where in a list: by its number, or by the `name` of what lies there."""
    if key.isdigit():
        return int(key) if int(key) < len(parts) else None
    names = [part.get("name") if isinstance(part, Mapping) else None for part in parts]
    return names.index(key) if key in names else None


def unsearched(parts: Sequence[ComponentConfig], space: Space) -> Iterator[ComponentConfig]:
    """A variant's regularisers without the parameters that a search sets: they do not belong into the variant's name."""
    for number, part in enumerate(parts):
        prefixes = [f"{REGULARIZERS}.{key}.params." for key in (number, part.name)]
        set_here = {
            path.removeprefix(prefix) for path in space for prefix in prefixes if path.startswith(prefix)
        }
        kept = {name: value for name, value in part.params.items() if name not in set_here}
        yield part.model_copy(update={"params": kept})


def put(values: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested `values` with each value of `point` at its dotted path; missing sections are made.

    Raises:
        ConfigError: a path leads through something that is no section, or to no place of a list.
    """
    changed: Any = values
    for path, value in point.items():
        changed = _put(changed, path.split("."), value, path)
    return dict(changed)


def _put(node: Any, keys: Sequence[str], value: Any, path: str) -> Any:
    if not keys:
        return value
    head, rest = keys[0], keys[1:]
    if isinstance(node, list):
        place = _place(node, head)
        if place is not None:
            return [*node[:place], _put(node[place], rest, value, path), *node[place + 1 :]]
    elif node is None or isinstance(node, Mapping):
        section = dict(node or {})
        return section | {head: _put(section.get(head), rest, value, path)}
    raise ConfigError(
        f"`sweep.search.space`: a path must lead to a setting of the trial, `{path}` ends at `{head}`"
    )


def ends(space: Space) -> tuple[dict[str, Any], dict[str, Any]]:
    """The points with every parameter at its lowest or first, and at its highest or last value."""
    low = {path: p.low if not p.values else p.values[0] for path, p in space.items()}
    high = {path: p.high if not p.values else p.values[-1] for path, p in space.items()}
    return low, high
