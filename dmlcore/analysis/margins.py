"""Part `margins`: every setting that was tried, and the one that validation chose of each family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.convergence import CURVE_COLUMN, still_rising
from dmlcore.analysis.metric_labels import METRICS, format_metric, format_percent, metric_label
from dmlcore.analysis.protocol import protocol_line
from dmlcore.analysis.statistics import Estimate, t_interval
from dmlcore.analysis.study import BASELINE, Study
from dmlcore.analysis.tuned_settings import (
    SELECTION_METRIC,
    FamilyKey,
    Setting,
    best_setting,
    chosen_study,
    eligible_settings,
    selection_seeds,
    tuned_settings,
)

SETTING_METRICS = (
    "validation/map_at_r",
    "validation/opis_corrected",
    *(f"test/{metric}" for metric in METRICS),
)
SELECTION_RULE = (
    "Settings are chosen by the mean validation MAP@R over the seeds that all settings of the family ran, one that "
    "lost such a seed left out; test values are of the chosen setting alone."
)


def margins_table(study: Study) -> pl.DataFrame:
    """One row a setting: means over its finished seeds.

    Columns: `dataset`, `backbone`, `loss`, `family`, `setting` (text), `parameter/NAME` (text), `seeds`, `M/mean` for
    validation MAP@R and corrected OPIS and each test metric, `chosen`.
    """
    rows = []
    for place, tried in tuned_settings(study).items():
        best = best_setting(tried)
        rows += [_setting_row(place, setting) | {"chosen": setting is best} for setting in tried]
    numbers = dict.fromkeys((f"{metric}/mean" for metric in SETTING_METRICS), pl.Float64)
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides=numbers)


def chosen_table(study: Study) -> pl.DataFrame:
    """One row a (data set, backbone, loss, family): what was tried, what validation chose, how that does on test.

    Columns: `dataset`, `backbone`, `loss`, `family`, `settings/tried`, `settings/eligible` (a validation MAP@R for each
    selection seed), `seeds/selection`, `setting` (text; null where none is eligible), `validation/map_at_r/mean` over
    the selection seeds, `seeds`, `converged`, `test/M/mean|low|high` for M of METRICS, `protocol`.
    """
    rows = [_chosen_row(study, place, tried) for place, tried in tuned_settings(study).items()]
    texts = dict.fromkeys(("setting", "seeds/selection", "protocol"), pl.String)
    counts = dict.fromkeys(("seeds", "converged"), pl.Int64)
    parts = {f"test/{m}/{part}": pl.Float64 for m in METRICS for part in ("mean", "low", "high")}
    overrides = {**texts, **counts, **parts, f"{SELECTION_METRIC}/mean": pl.Float64}
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides=overrides)


def margins_sentences(study: Study) -> list[str]:
    """How many settings each family had, what was chosen, and each chosen family against the chosen base."""
    sentences = [_choice(row) for row in chosen_table(study).to_dicts()]
    compared = [row for row in comparisons(chosen_study(study)).to_dicts() if row["variant"] != BASELINE]
    return [SELECTION_RULE, *sentences, *(_difference(row, study.config.confidence) for row in compared)]


def _setting_row(place: FamilyKey, setting: Setting) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip(("dataset", "backbone", "loss", "family"), place, strict=True))
    row |= {"setting": setting.text, "seeds": setting.finished.height}
    row |= {f"parameter/{name}": None if v is None else str(v) for name, v in setting.parameters.items()}
    return row | {f"{metric}/mean": setting.mean(metric) for metric in SETTING_METRICS}


def _chosen_row(study: Study, place: FamilyKey, tried: Sequence[Setting]) -> dict[str, Any]:
    best, seeds = best_setting(tried), selection_seeds(tried)
    row: dict[str, Any] = dict(zip(("dataset", "backbone", "loss", "family"), place, strict=True))
    row |= {"settings/tried": len(tried), "settings/eligible": len(eligible_settings(tried, seeds))}
    row |= {"seeds/selection": ", ".join(map(str, seeds)), "setting": best and best.text}
    row[f"{SELECTION_METRIC}/mean"] = best and best.mean(SELECTION_METRIC, seeds)
    row |= {"seeds": best and best.finished.height, "converged": best and _converged(best)}
    for metric in METRICS:
        row |= _interval(f"test/{metric}", best, study.config.confidence)
    return row | {"protocol": protocol_line(study, place[0])}


def _converged(setting: Setting) -> int | None:
    if CURVE_COLUMN not in setting.finished.columns:
        return None
    curves = setting.finished[CURVE_COLUMN].drop_nulls().to_list()
    known = [rising for curve in curves if (rising := still_rising(curve)) is not None]
    return known.count(False) if known else None


def _interval(metric: str, setting: Setting | None, confidence: float) -> dict[str, float | None]:
    found = Estimate(None, None, None, None, 0)
    if setting is not None:
        found = t_interval(setting.values(metric), confidence)
    return {f"{metric}/mean": found.mean, f"{metric}/low": found.low, f"{metric}/high": found.high}


def _choice(row: Mapping[str, Any]) -> str:
    tried = row["settings/tried"]
    who = f"{_who(row, row['family'])}: {tried} setting{'s' if tried != 1 else ''} tried"
    if row["setting"] is None:
        return f"{who}, none with all its seeds."
    values = ", ".join(
        f"{metric_label(m)} {format_metric(row[f'test/{m}/mean'], m)}"
        for m in ("map_at_r", "opis", "opis_corrected")
    )
    score = format_metric(row[f"{SELECTION_METRIC}/mean"], SELECTION_METRIC)
    return f"{who}, chosen {row['setting']} (validation MAP@R {score}); test {values}."


def _difference(row: Mapping[str, Any], confidence: float) -> str:
    if row["test/map_at_r/difference/mean"] is None:
        return f"{_who(row, row['variant'])}: no base with the same seeds to compare with."
    parts = [_change(row, metric) for metric in ("map_at_r", "opis", "opis_corrected")]
    return (
        f"{_who(row, row['variant'])}, chosen, less {row['loss']} alone, chosen: {', '.join(parts)} "
        f"({format_percent(confidence)} intervals of the paired differences, {row['seeds/paired']} pairs)."
    )


def _change(row: Mapping[str, Any], metric: str) -> str:
    mean, low, high = (
        format_metric(row[f"test/{metric}/difference/{p}"], metric, signed=True)
        for p in ("mean", "low", "high")
    )
    return f"{metric_label(metric)} {mean} ({low} to {high})"


def _who(row: Mapping[str, Any], family: str) -> str:
    names = {"none": f"{family} alone"}
    place = f"{row['dataset']} {row['backbone']} "
    if family == BASELINE:
        return f"{place}{row['loss']} alone"
    return place + names.get(row["loss"], f"{row['loss']} + {family}")
