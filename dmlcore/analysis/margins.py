"""The tables of part `margins`: every setting that was tried, and the one that validation chose of each family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from dmlcore.analysis.convergence import count_curves, validation_curves
from dmlcore.analysis.metric_labels import METRICS
from dmlcore.analysis.protocol import protocol_line
from dmlcore.analysis.statistics import NO_ESTIMATE, t_interval
from dmlcore.analysis.study import CELL_COLUMNS, Study, finite_values
from dmlcore.analysis.tuned_settings import (
    SELECTION_METRIC,
    FamilyKey,
    Setting,
    best_setting,
    eligible_settings,
    selection_seeds,
    tuned_settings,
)

SETTING_METRICS = (SELECTION_METRIC, "validation/opis_corrected", *(f"test/{metric}" for metric in METRICS))
SELECTION_RULE = (
    "Settings are chosen by the mean validation MAP@R over the seeds that all settings of the family ran, one that "
    "lost such a seed left out; test values are of the chosen setting alone."
)


def margins_table(study: Study) -> pl.DataFrame:
    """Return one row a setting: means over its finished seeds.

    Columns: `dataset`, `backbone`, `loss`, `family`, `setting` (text), `seeds`, `parameter/NAME` (text), `M/mean` for
    validation MAP@R and corrected OPIS and each test metric, `chosen`.
    """
    rows = []
    for family, tried in tuned_settings(study).items():
        best = best_setting(tried)
        rows += [_setting_row(family, setting) | {"chosen": setting is best} for setting in tried]
    numbers = dict.fromkeys((f"{metric}/mean" for metric in SETTING_METRICS), pl.Float64)
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides=numbers)


def chosen_table(study: Study) -> pl.DataFrame:
    """Return one row a (data set, backbone, loss, family): what was tried, what validation chose, its test values.

    Columns: `dataset`, `backbone`, `loss`, `family`, `settings/tried`, `settings/eligible` (a validation MAP@R for each
    selection seed), `seeds/selection`, `setting` (text; null where none is eligible), `validation/map_at_r/mean` over
    the selection seeds, `seeds`, `converged`, `test/M/mean|low|high` for M of METRICS, `protocol`.
    """
    rows = [_chosen_row(study, family, tried) for family, tried in tuned_settings(study).items()]
    texts = dict.fromkeys(("setting", "seeds/selection", "protocol"), pl.String)
    counts = dict.fromkeys(("seeds", "converged"), pl.Int64)
    tested = (name for metric in METRICS for name in NO_ESTIMATE.columns(f"test/{metric}"))
    numbers = dict.fromkeys((f"{SELECTION_METRIC}/mean", *tested), pl.Float64)
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides={**texts, **counts, **numbers})


def _setting_row(family: FamilyKey, setting: Setting) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip((*CELL_COLUMNS, "family"), family, strict=True))
    row |= {"setting": setting.text, "seeds": setting.finished.height}
    row |= {f"parameter/{name}": None if v is None else str(v) for name, v in setting.parameters.items()}
    return row | {f"{metric}/mean": setting.mean(metric) for metric in SETTING_METRICS}


def _chosen_row(study: Study, family: FamilyKey, tried: Sequence[Setting]) -> dict[str, Any]:
    best, seeds = best_setting(tried), selection_seeds(tried)
    row: dict[str, Any] = dict(zip((*CELL_COLUMNS, "family"), family, strict=True))
    searched = [n for s in tried if "tried" in s.trials.columns for n in s.trials["tried"].drop_nulls()]
    row |= {
        "settings/tried": max(searched, default=len(tried)),
        "settings/eligible": len(eligible_settings(tried, seeds)),
    }
    row |= {"seeds/selection": ", ".join(map(str, seeds)), "setting": best and best.text}
    row[f"{SELECTION_METRIC}/mean"] = best and best.mean(SELECTION_METRIC, seeds)
    counted = best and count_curves(validation_curves(best.finished))
    row |= {"seeds": best and best.finished.height, "converged": counted and counted.converged}
    for metric in (f"test/{metric}" for metric in METRICS):
        values = list(finite_values(best.finished, metric).values()) if best else []
        row |= t_interval(values, study.config.confidence).columns(metric)
    return row | {"protocol": protocol_line(study, family[0])}
