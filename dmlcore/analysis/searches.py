"""The trials of the searches of a study: what was tried, and what was chosen by validation."""

from __future__ import annotations

from dmlcore.analysis.columns import Row
from dmlcore.analysis.metric_labels import value_text
from dmlcore.analysis.study import CELL_COLUMNS, SEARCH_PREFIX, Study

SEARCH_METRICS = ("map_at_r", "opis")


def search_trials(study: Study) -> dict[tuple[str, ...], list[Row]]:
    """Return (data set, backbone, loss, variant) -> its trials at the seed of the search, in the order of the asks."""
    if study.searched is None:
        return {}
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in study.searched.sort("ask").to_dicts():
        found.setdefault(_search_key(row), []).append(row)
    # The chosen setting ran with every seed of the study; the first of them is the search's own
    for row in study.trials.sort("seed").to_dicts():
        others = found.setdefault(_search_key(row), [])
        if not others or row["seed"] == others[0]["seed"]:
            others.append(row)
    return {key: sorted(found[key], key=lambda row: row["ask"]) for key in sorted(found)}


def setting_text(row: Row) -> str:
    """Return the values that the search gave, by the last part of their path."""
    found = {
        name: value for name, value in row.items() if name.startswith(SEARCH_PREFIX) and value is not None
    }
    names = [name.removeprefix(SEARCH_PREFIX).rsplit(".", 1)[-1] for name in found]
    return ", ".join(f"{name}={value_text(v)}" for name, v in zip(names, found.values(), strict=True))


def _search_key(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in (*CELL_COLUMNS, "variant"))
