"""What a search tried and chose, which margins the scores gave, and what that means for the comparisons."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import polars as pl

from dmlcore.analysis.columns import Row
from dmlcore.analysis.metric_labels import format_metric, metric_label
from dmlcore.analysis.study import CELL_COLUMNS, SEARCH_PREFIX, Study
from dmlcore.analysis.tuned_settings import (
    GIVEN_COLUMN,
    REGULARIZERS_COLUMN,
    parameters_text,
    rate_text,
)

SEARCH_METRICS = ("map_at_r", "opis_corrected")
"""On validation classes: what the tables and the figure of a search show, whatever its objectives."""
STATUS_WORDS = {"stopped": "stopped early", "failed": "failed", "missing": "missing"}


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
    found = {k: v for k, v in row.items() if k.startswith(SEARCH_PREFIX) and v is not None}
    return parameters_text({name.removeprefix(SEARCH_PREFIX): value for name, value in found.items()})


def search_results(study: Study) -> pl.DataFrame:
    """Return one row a setting that a search tried, at the search's seed.

    Columns: `dataset`, `backbone`, `loss`, `variant`, `ask`, `role` (chosen, front, searched), `status`, `setting`
    (text), `validation/M` for M of SEARCH_METRICS, `search/PATH` of each setting that varied.
    """
    kept = [*CELL_COLUMNS, "variant", "ask", "role", "status"]
    scores = [f"validation/{metric}" for metric in SEARCH_METRICS]
    rows = []
    for row in (row for tried in search_trials(study).values() for row in tried):
        varied = {name: value for name, value in row.items() if name.startswith(SEARCH_PREFIX)}
        values = {name: row.get(name) for name in (*kept, *scores)}
        rows.append(values | {"setting": setting_text(row)} | varied)
    columns = dict.fromkeys((*CELL_COLUMNS, "variant", "role", "status", "setting"), pl.String)
    return pl.DataFrame(
        rows, infer_schema_length=None, schema_overrides={**columns, **dict.fromkeys(scores, pl.Float64)}
    )


def margins_of_rates(study: Study) -> dict[tuple[str, ...], dict[str, list[float]]]:
    """Return (data set, backbone, loss, variant) -> `NAME.PARAMETER RATE` -> the margin that each trial's base gave."""
    if GIVEN_COLUMN not in study.trials.columns:
        return {}
    found: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in study.trials.drop_nulls(GIVEN_COLUMN).sort(*CELL_COLUMNS, "variant", "seed").to_dicts():
        margins = found.setdefault(_search_key(row), {})
        for given, resolved in zip(
            *map(json.loads, (row[GIVEN_COLUMN], row[REGULARIZERS_COLUMN])), strict=True
        ):
            for name, value in given["params"].items():
                if isinstance(value, dict):
                    label = f"{given['name']}.{name} {rate_text(value)}"
                    margins.setdefault(label, []).append(resolved["params"][name])
    return found


def _search_key(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in (*CELL_COLUMNS, "variant"))


def unequal_searches(rows: Sequence[Row]) -> list[str]:
    """Name the comparisons whose sides had not as many settings tried: a difference may come from that alone."""
    sides = ("baseline/settings_tried", "variant/settings_tried")
    counts = [tuple(row[side] for side in sides) for row in rows if None not in [row.get(s) for s in sides]]
    unequal = [pair for pair in counts if pair[0] != pair[1]]
    if not unequal:
        return []
    worst = max(unequal, key=lambda pair: abs(pair[0] - pair[1]))
    return [
        f"In {len(unequal)} of {len(counts)} comparisons the two sides had not as many settings tried (such as "
        f"{worst[0]} for the baseline, {worst[1]} for the variant): some of the difference may come from that."
    ]


def search_sentences(study: Study) -> list[str]:
    """Say of each search how many settings it tried, which it chose, and which the chosen one does not beat."""
    found = [_search_sentence(" ".join(names), rows) for names, rows in search_trials(study).items()]
    return [*found, _search_seed_sentence(study)] if found else []


def _search_seed_sentence(study: Study) -> str:
    """Say whether the seed at which settings were chosen is among those compared."""
    seeds = study.trials["search_seed"].unique().to_list() if "search_seed" in study.trials.columns else []
    if len(seeds) != 1 or seeds[0] is None:
        return "The seed at which settings were chosen may be among those compared."
    if seeds[0] in set(study.trials["seed"]):
        return (
            f"Seed {seeds[0]}, at which the settings were chosen, is counted among those compared: the best of many "
            "tries owes some of its score to luck."
        )
    return f"Seed {seeds[0]}, at which the settings were chosen, is not among those compared."


def rate_sentences(study: Study) -> list[str]:
    """Say which margins the scores of the base models gave for each rate, over seeds and swept axes."""
    found = []
    for names, margins in margins_of_rates(study).items():
        texts = [
            f"{label} = " + " to ".join(f"{end:.4f}" for end in sorted({min(values), max(values)}))
            for label, values in margins.items()
        ]
        count = max(map(len, margins.values()))
        found.append(
            f"Margins of {' '.join(names[:3])} from the scores of its base model on validation classes: "
            f"{'; '.join(texts)} ({count} trial{'s' if count != 1 else ''})."
        )
    return found


def _search_sentence(name: str, rows: Sequence[Row]) -> str:
    status = Counter(row["status"] for row in rows)
    ends = [f"{status[key]} {word}" for key, word in STATUS_WORDS.items() if status[key]]
    lost = f" ({', '.join(ends)})" if ends else ""
    chosen = "; ".join(_scored_setting(row) for row in rows if row["role"] == "chosen") or "none yet"
    front = "; ".join(_scored_setting(row) for row in rows if row["role"] == "front")
    kept = f" Not beaten in both objectives either: {front}." if front else ""
    rules = [row["choice"] for row in rows if row["role"] == "chosen" and row.get("choice")]
    rule = f" by {rules[0]}" if rules else ""
    return f"Search of {name}: {len(rows)} settings tried{lost}. Chosen on validation{rule}: {chosen}.{kept}"


def _scored_setting(row: Row) -> str:
    scores = [f"{metric_label(m)} {format_metric(row.get(f'validation/{m}'), m)}" for m in SEARCH_METRICS]
    return f"{setting_text(row) or 'the only one'} ({', '.join(scores)})"
