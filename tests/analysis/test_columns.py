"""A column that is added to the one list is in the terminal, Markdown, LaTeX, HTML and CSV tables."""

from __future__ import annotations

import csv
import io
from statistics import median

import pytest

from dmlcore.analysis import columns
from dmlcore.analysis.columns import COLUMNS, Column
from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.metric_labels import METRICS, Metric
from dmlcore.report.html.tables import comparison_table
from dmlcore.report.text.exports import csv_text, latex_comparisons, markdown_comparisons
from dmlcore.report.text.tables import markdown_table
from tests.analysis.synthetic import rows, study
from tests.report.test_tables import printed

TRIALS = rows(backbones=("vit",), losses=("smooth_ap",))


def outputs() -> dict[str, str]:
    """What each output shows of a study with one comparison."""
    table = comparisons(study(TRIALS))
    found = table.to_dicts()
    page = comparison_table(found, 0.95)
    return {
        "terminal": printed(TRIALS),
        "Markdown": markdown_comparisons(found),
        "Markdown of the summary": markdown_table(study(TRIALS)),
        "LaTeX": latex_comparisons(found),
        "HTML": " ".join(page.columns) + page.body,
        "CSV": csv_text(table),
    }


def test_a_new_column_is_in_every_output(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any("middle" in text for text in outputs().values())
    added = Column("difference/median", "middle", lambda c: median(c.paired.values), lambda v, _: f"{v:+.7f}")
    monkeypatch.setattr(columns, "COLUMNS", (*COLUMNS, added))
    values = [row["test/map_at_r"] for row in TRIALS]
    expected = median(variant - baseline for baseline, variant in zip(values[:3], values[3:], strict=True))
    found = outputs()
    table = next(csv.DictReader(io.StringIO(found.pop("CSV"))))
    assert float(table["test/map_at_r/difference/median"]) == pytest.approx(expected, rel=1e-5)
    for name, text in found.items():
        assert "middle" in text, name
        assert f"{expected:+.7f}" in text, name


def test_a_new_metric_is_in_every_output(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any("Distance" in text for text in outputs().values())
    monkeypatch.setitem(METRICS, "distance_max", Metric("Distance", decimals=6))
    mean = sum(row["test/distance_max"] for row in TRIALS[:3]) / 3
    found = outputs()
    table = next(csv.DictReader(io.StringIO(found.pop("CSV"))))
    assert float(table["test/distance_max/baseline/mean"]) == pytest.approx(mean, rel=1e-5)
    for name, text in found.items():
        assert "Distance" in text, name
        assert f"{mean:.6f}" in text, name
