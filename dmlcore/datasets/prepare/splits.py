"""Which classes train, validate and test; the unit (class or super-class) is never divided."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from dmlcore.config.data import SplitConfig
from dmlcore.core.errors import DataError
from dmlcore.core.text import normalised
from dmlcore.datasets.prepare.catalogue import Item


def assign_splits(items: Sequence[Item], config: SplitConfig) -> list[str]:
    """Return the split of each item.

    `hashed`: units sorted by the sha256 of their text, the first `test_share` of them test, the next
    `validation_share` validate, the rest train (shares of the units, rounded). `scripts`: every script but Latin tests,
    validation is hashed from Latin. `listed`: as named. `official`: the published test half tests; of the published
    training half, the units first by the hash validate (`validation_share` of all units). Protocol `closed` divides the
    images of each class by hash instead, so that every split holds every class.

    Raises:
        DataError: a listed name that no item has or that is in two splits, or no split was published.
    """
    if config.protocol == "closed":
        return _closed(items, config)
    by_unit = _RULES[config.rule](items, config)
    return [by_unit[_unit(item, config)] for item in items]


def without_units(items: Sequence[Item], kept: Sequence[Item], config: SplitConfig) -> SplitConfig:
    """Return the settings without the listed units of which no item is kept."""
    if config.rule != "listed" or len(kept) == len(items):
        return config
    units = {_unit(item, config) for item in items}
    gone = units - {_unit(item, config) for item in kept}
    left = {
        part: tuple(name for name in getattr(config, part) if _named(name, units, config) not in gone)
        for part in ("test", "validation")
    }
    return config.model_copy(update=left)


def describe_protocol(config: SplitConfig, classes: Iterable[int]) -> str:
    """Return the protocol in one line.

    Args:
        config: its rule.
        classes: numbers of train, validation and test classes.
    """
    closed = config.protocol == "closed"
    kept = "images of each class divided (closed set)" if closed else f"no {config.unit} in two splits"
    rule = f"rule {config.rule}" + ("" if config.rule == "listed" else f", seed {config.seed}")
    return f"{kept}; {rule}; {' / '.join(map(str, classes))} classes train / validation / test"


def hash_order(texts: Iterable[str], seed: int) -> list[str]:
    """Sort distinct texts by the sha256 of the text alone for seed 0, of `seed:text` otherwise."""
    # A hash, not a shuffle: a class added later does not reorder the others.
    prefix = f"{seed}:" if seed else ""
    return sorted(set(texts), key=lambda text: hashlib.sha256((prefix + text).encode()).hexdigest())


def _hashed(items: Sequence[Item], config: SplitConfig) -> dict[str, str]:
    return _cut_by_share(_ordered_units(items, config), config)


def _scripts(items: Sequence[Item], config: SplitConfig) -> dict[str, str]:
    other = {item.class_name for item in items if not item.super_class.startswith("Latin/")}
    ordered = _ordered_units([item for item in items if item.class_name not in other], config)
    validation = _share(config.validation_share, len(other) + len(ordered))
    return dict.fromkeys(other, "test") | _cut(ordered, 0, validation)


def _listed(items: Sequence[Item], config: SplitConfig) -> dict[str, str]:
    units = {_unit(item, config) for item in items}
    test, validation = (
        [_named(name, units, config) for name in names] for names in (config.test, config.validation)
    )
    if both := set(test) & set(validation):
        raise DataError(
            f"split rule `listed`: {sorted(both)} are in both `test` and `validation`; name each once"
        )
    return (
        dict.fromkeys(units, "train") | dict.fromkeys(validation, "validation") | dict.fromkeys(test, "test")
    )


def _named(name: str, units: set[str], config: SplitConfig) -> str:
    """Return the unit of that name, or else the only one that differs from it by Unicode normalisation alone."""
    alike = [unit for unit in units if normalised(unit) == normalised(name)]
    if name not in units and len(alike) != 1:
        raise DataError(
            f"split rule `listed`: no {config.unit} is called {name!r}; known: {sorted(units)[:20]}"
        )
    return name if name in units else alike[0]


def _official(items: Sequence[Item], config: SplitConfig) -> dict[str, str]:
    halves: dict[str, str] = {}
    for item in items:
        if item.official is None:
            raise DataError("split rule `official`: this data set has no published split; use rule `hashed`")
        if halves.setdefault(_unit(item, config), item.official) != item.official:
            raise DataError(
                f"split rule `official`: {config.unit} {_unit(item, config)!r} is in both published halves; "
                "use unit `class`"
            )
    ordered = _ordered_units([item for item in items if item.official == "train"], config)
    validation = min(_share(config.validation_share, len(halves)), len(ordered))
    return dict.fromkeys(halves, "test") | _cut(ordered, 0, validation)


_RULES = {"hashed": _hashed, "scripts": _scripts, "listed": _listed, "official": _official}


def _closed(items: Sequence[Item], config: SplitConfig) -> list[str]:
    sources: dict[str, list[str]] = {}
    for item in items:
        sources.setdefault(item.class_name, []).append(item.source)
    by_source: dict[str, str] = {}
    for names in sources.values():
        by_source |= _cut_by_share(hash_order(names, config.seed), config)
    return [by_source[item.source] for item in items]


def _cut_by_share(ordered: Sequence[str], config: SplitConfig) -> dict[str, str]:
    count = len(ordered)
    return _cut(ordered, _share(config.test_share, count), _share(config.validation_share, count))


def _cut(ordered: Sequence[str], test: int, validation: int) -> dict[str, str]:
    # Test first: another `validation_share` leaves the test split as it is.
    names = ["test"] * test + ["validation"] * validation
    names += ["train"] * (len(ordered) - len(names))
    return dict(zip(ordered, names, strict=True))


def _share(share: float, count: int) -> int:
    return int(share * count + 0.5)  # Not round(): it takes 0.5 to the even number.


def _unit(item: Item, config: SplitConfig) -> str:
    return item.class_name if config.unit == "class" else item.super_class


def _ordered_units(items: Iterable[Item], config: SplitConfig) -> list[str]:
    by_class = config.unit == "class"
    units = {item.split_text if by_class else item.super_class: _unit(item, config) for item in items}
    return [units[text] for text in hash_order(units, config.seed)]
