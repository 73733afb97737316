"""What the searches of a study tried, and what they chose by validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from dmlcore.analysis.metric_labels import format_metric, metric_label
from dmlcore.analysis.study import CELL_COLUMNS, SEARCH_PREFIX, Study

SEARCH_METRICS = ("map_at_r", "opis")
Row = Mapping[str, Any]


def search_sentences(study: Study) -> list[str]:
    """One a search: how many settings were tried, the chosen one, and those that it does not beat in everything."""
    return [_sentence(place, rows) for place, rows in search_trials(study).items()]


def search_trials(study: Study) -> dict[tuple[str, ...], list[Row]]:
    """(data set, backbone, loss, variant) -> its trials at the seed of the search, in the order of the asks."""
    if study.searched is None:
        return {}
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in study.searched.sort("ask").to_dicts():
        found.setdefault(_place(row), []).append(row)
    for row in study.trials.sort("seed").to_dicts():
        others = found.setdefault(_place(row), [])
        if not others or row["seed"] == others[0]["seed"]:
            others.append(row)
    return {place: sorted(found[place], key=lambda row: row["ask"]) for place in sorted(found)}


def _place(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in (*CELL_COLUMNS, "variant"))


def setting_text(row: Row) -> str:
    """The values that the search gave, by the last part of their path."""
    values = {
        name.removeprefix(SEARCH_PREFIX): value
        for name, value in row.items()
        if name.startswith(SEARCH_PREFIX)
    }
    return ", ".join(
        f"{path.rsplit('.', 1)[-1]}={_text(value)}" for path, value in values.items() if value is not None
    )


def _sentence(place: tuple[str, ...], rows: list[Row]) -> str:
    status = Counter(row["status"] for row in rows)
    ends = [f"{status[name]} {word}" for name, word in WORDS.items() if status[name]]
    lost = f" ({', '.join(ends)})" if ends else ""
    chosen = "; ".join(_scored(row) for row in rows if row["role"] == "chosen") or "none yet"
    front = "; ".join(_scored(row) for row in rows if row["role"] == "front")
    kept = f" Not beaten in both objectives either: {front}." if front else ""
    return f"Search of {' '.join(place)}: {len(rows)} settings tried{lost}. Chosen on validation: {chosen}.{kept}"


WORDS = {"stopped": "stopped early", "failed": "failed", "missing": "missing"}


def _scored(row: Row) -> str:
    scores = [
        f"{metric_label(metric)} {format_metric(row.get(f'validation/{metric}'), metric)}"
        for metric in SEARCH_METRICS
    ]
    return f"{setting_text(row) or 'the only one'} ({', '.join(scores)})"


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
