"""What is printed, the same as Markdown, and the sentence made from the numbers."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console

from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.findings import caveats
from dmlcore.analysis.study import Study
from dmlcore.report.text.tables import code_span, markdown_table, print_summary
from tests.analysis.synthetic import TCM, rows, study, table, unfinished
from tests.report.test_outputs import HOSTILE


def printed(found: list) -> str:
    """The summary of made-up rows."""
    out = io.StringIO()
    console = Console(file=out, width=100, highlight=False)
    print_summary(
        study(found), plot="tradeoff.png", results="c.csv", mlflow="sqlite:///m.db", console=console
    )
    return out.getvalue()


def printed_study(found: Study) -> str:
    """The summary of a study, as one line."""
    out = io.StringIO()
    print_summary(found, plot="p", results="r", mlflow="m", console=Console(file=out, width=100))
    return " ".join(out.getvalue().split())


def shifted(changes: dict[str, float], seeds: tuple[int, ...] = (0, 1, 2)) -> list:
    """Two cells; variant - baseline of each metric is `changes`, plus a spread over seeds of a tenth of it."""
    found = rows(backbones=("vit",), seeds=seeds)
    baseline = {(row["loss"], row["seed"]): row for row in found if row["variant"] == "baseline"}
    for row in found:
        for metric, change in changes.items():
            base = baseline[row["loss"], row["seed"]]
            on = change * (1 + 0.1 * (row["seed"] - 1)) if row["variant"] != "baseline" else 0.0
            row[f"test/{metric}"] = base[f"test/{metric}"] + on
    return found


def test_caveats_name_unfinished_and_unlearned() -> None:
    found = rows(backbones=("vit",))
    found[0] = unfinished(found[0], error="ValueError: loss is NaN\n  Traceback")
    for row in found[6:]:
        row["untrained/map_at_r"] = 0.9
    notes = caveats(study(found), comparisons(study(found)).to_dicts())
    assert notes[0] == "1 of 12 trials are not finished and not in the means:"
    assert notes[1].endswith("glyphs vit recall_at_k baseline seed 0: ValueError: loss is NaN Traceback")
    assert f"smooth_ap {TCM} on glyphs" in notes[2]
    assert "recall_at_k" not in notes[2]


def test_the_summary_fits_100_columns_and_says_where_the_files_are() -> None:
    text = printed(rows(("glyphs", "grocery"), **{"train.batch_size": 128}))
    assert max(len(line) for line in text.splitlines()) <= 100
    for part in (
        "tradeoff.png",
        "c.csv",
        "sqlite:///m.db",
        "Protocol: glyphs",
        "3 of 3 pairs",
        "Counts, which do not enter the verdict: ",
    ):
        assert part in text


def test_the_summary_shows_the_numbers() -> None:
    found = rows(backbones=("vit",), losses=("smooth_ap",))
    baseline, on = (
        [row["test/opis"] for row in found if (row["variant"] == "baseline") is side]
        for side in (True, False)
    )
    text = printed(found)
    line = next(line for line in text.splitlines() if " OPIS " in line and "±" in line)
    numbers = [float(part) for part in re.findall(r"[+-]?\d\.\d+", line)]
    assert numbers[:2] == [0.043, 0.051]
    assert numbers[2::2] == pytest.approx(
        [np.mean(baseline), np.mean(on), np.mean(on) - np.mean(baseline)], abs=6e-6
    )


def test_failed_trials_are_printed_with_their_reason() -> None:
    found = rows()
    found[4] = unfinished(found[4], error="RuntimeError: [red]boom[/red]")
    text = printed(found)
    assert "2 of 3 pairs" in text
    assert "RuntimeError: [red]boom[/red]" in " ".join(text.split())


def test_markdown_rows_have_the_same_cells_whatever_the_names() -> None:
    found = rows(HOSTILE[:1], HOSTILE[1:2], HOSTILE[2:5], ("baseline", "variant|`x`"), (0, 1))
    lines = [line for line in markdown_table(study(found)).splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + 2 + 3
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {11}
    outside = re.sub(r"`[^`]*`", "", "\n".join(lines))
    assert "<" not in outside
    assert "$" not in outside


def test_markdown_marks_what_leaves_out_0() -> None:
    text = markdown_table(study(shifted({"opis": -0.002})))
    assert "(**-0.00200 ± " in text
    assert "raw pixels" in text
    assert "before training" in text


def test_code_span_keeps_a_name_in_its_cell() -> None:
    assert code_span("a|b`c\nd") == "`a\\|b'c d`"
    assert code_span("") == ""


def test_two_variants_have_a_table_each() -> None:
    other = "tcm(negative_margin=0.3,positive_margin=0.8)"
    text = printed(rows(variants=("baseline", TCM, other)))
    assert text.count(", against baseline") == 2


def test_table_of_trials_is_sorted() -> None:
    keys = table(rows())["trial_key"].to_list()
    assert keys == sorted(keys)


def test_caveats_name_the_configuration_of_the_highest_recall() -> None:
    found = rows(seeds=(0, 1))
    names = ("backbone", "loss", "variant")
    best = [found[-1][name] for name in names]
    for row in found:
        row["test/recall_at_1"] = 0.25 + 0.5 * row["seed"] * ([row[name] for name in names] == best)
    (note,) = [note for note in caveats(study(found), []) if note.startswith("The highest R@1")]
    assert note == f"The highest R@1 is 0.5000: glyphs, {', '.join(best)}."  # the mean over the seeds
