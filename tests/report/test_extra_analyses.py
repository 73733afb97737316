"""Which files each part writes, that they are the same bytes each time, and that the summary says what they found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from dmlcore.analysis.study import Study
from dmlcore.report.outputs import write_results
from dmlcore.report.text.tables import markdown_table
from tests.analysis.studies import LOSSES, as_study, losses_study, margins_study, toy_rows
from tests.report.test_outputs import FILES
from tests.report.test_tables import printed_study


def written(study: Study, folder: Path) -> dict[str, bytes]:
    write_results(study, folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def few_losses() -> Study:
    """Three losses: 36 panels of utility take their time."""
    study = losses_study(0.06)
    return replace(study, trials=study.trials.filter(pl.col("loss").is_in(LOSSES[::4])))


@pytest.mark.parametrize(
    ("part", "files"),
    [
        ("pareto", ["bend.csv", "pareto.csv", "pareto.png"]),
        ("margins", ["chosen.csv", "margins.csv", "margins.png"]),
        ("embedding", ["embedding.png"]),
    ],
)
def test_a_part_writes_its_files_the_same_each_time(tmp_path: Path, part: str, files: list[str]) -> None:
    if part == "embedding":
        found = as_study(toy_rows(tmp_path / "storage"), part, tmp_path / "storage")
    else:
        found = margins_study() if part == "margins" else few_losses()
    again = Study(found.trials.clone(), found.datasets, found.config, found.storage, records=found.records)
    first = written(found, tmp_path / "a")
    assert list(first) == sorted([*FILES, *files])
    assert written(again, tmp_path / "b") == first


def test_the_summary_has_the_sentences_and_only_the_chosen_settings() -> None:
    text = printed_study(margins_study())
    assert "9 settings tried, chosen negative_margin=0.4, positive_margin=0.8" in text
    assert text.count("against baseline") == 1
    markdown = markdown_table(margins_study())
    assert "9 settings tried" in markdown
    assert sum(line.startswith("| `glyphs`") for line in markdown.splitlines()) == 2 + 2
    bent = printed_study(losses_study(0.06))
    assert "Breakpoint at MAP@R" in bent
    assert "One variant alone (baseline): nothing to compare." in bent


def test_comparisons_still_hold_every_setting(tmp_path: Path) -> None:
    write_results(margins_study(), tmp_path)
    assert pl.read_csv(tmp_path / "comparisons.csv").height == 9 + 9 + 3
