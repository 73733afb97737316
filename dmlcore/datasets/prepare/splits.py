"""Which classes train, validate and test; the unit (class or super-class) is never divided."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from dmlcore.config.data import SplitConfig
from dmlcore.core.errors import DataError
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


def hash_order(texts: Iterable[str], seed: int) -> list[str]:
    """Sort distinct texts by the sha256 of the text alone for seed 0, of `seed:text` otherwise."""
    prefix = f"{seed}:" if seed else ""
    return sorted(set(texts), key=lambda text: hashlib.sha256((prefix + text).encode()).hexdigest())


def _hashed(items: Sequence[Item], config: SplitConfig) -> dict[str, str]:
    units = {_hash_text(item, config): _unit(item, config) for item in items}
    ordered = [units[text] for text in hash_order(units, config.seed)]
    return _cut(
        ordered, _share(config.test_share, len(ordered)), _share(config.validation_share, len(ordered))
    )


def _scripts(items: Sequence[Item], config: SplitConfig) -> dict[str, str]:
    other = {item.class_name for item in items if not item.super_class.startswith("Latin/")}
    latin = {item.split_text: item.class_name for item in items if item.class_name not in other}
    ordered = [latin[text] for text in hash_order(latin, config.seed)]
    validation = _share(config.validation_share, len(other) + len(ordered))
    return dict.fromkeys(other, "test") | _cut(ordered, 0, validation)


def _listed(items: Sequence[Item], config: SplitConfig) -> dict[str, str]:
    units = {_unit(item, config) for item in items}
    for name in (*config.test, *config.validation):
        if name not in units:
            raise DataError(
                f"split rule `listed`: no {config.unit} is called {name!r}; known: {sorted(units)[:20]}"
            )
    if both := set(config.test) & set(config.validation):
        raise DataError(
            f"split rule `listed`: {sorted(both)} are in both `test` and `validation`; name each once"
        )
    return (
        dict.fromkeys(units, "train")
        | dict.fromkeys(config.validation, "validation")
        | dict.fromkeys(config.test, "test")
    )


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
    training = {_hash_text(item, config): _unit(item, config) for item in items if item.official == "train"}
    ordered = [training[text] for text in hash_order(training, config.seed)]
    validation = min(_share(config.validation_share, len(halves)), len(ordered))
    return dict.fromkeys(halves, "test") | _cut(ordered, 0, validation)


_RULES = {"hashed": _hashed, "scripts": _scripts, "listed": _listed, "official": _official}


def _closed(items: Sequence[Item], config: SplitConfig) -> list[str]:
    sources: dict[str, list[str]] = {}
    for item in items:
        sources.setdefault(item.class_name, []).append(item.source)
    by_source: dict[str, str] = {}
    for names in sources.values():
        test, validation = _share(config.test_share, len(names)), _share(config.validation_share, len(names))
        by_source |= _cut(hash_order(names, config.seed), test, validation)
    return [by_source[item.source] for item in items]


def _cut(ordered: Sequence[str], test: int, validation: int) -> dict[str, str]:
    names = ["test"] * test + ["validation"] * validation
    names += ["train"] * (len(ordered) - len(names))
    return dict(zip(ordered, names, strict=True))


def _share(share: float, count: int) -> int:
    return int(share * count + 0.5)  # Not round(): it takes 0.5 to the even number.


def _unit(item: Item, config: SplitConfig) -> str:
    return item.class_name if config.unit == "class" else item.super_class


def _hash_text(item: Item, config: SplitConfig) -> str:
    return item.split_text if config.unit == "class" else item.super_class
