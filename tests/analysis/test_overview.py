"""What several studies decide together: counts by hand, and a comparison of the same trials counted once."""

from __future__ import annotations

import io
from collections import Counter

from rich.console import Console

from dmlcore.analysis.overview import overview
from dmlcore.report.text.overview import markdown_overview, print_overview
from tests.analysis.synthetic import TCM, study
from tests.analysis.test_verdict import made_up


def test_outcomes_are_counted_and_the_same_trials_once_over_all() -> None:
    evener, unknown = made_up([0.5, 0.2]), made_up([0.3, -0.3], gain=-0.1, rising=(TCM,))
    worse = made_up([-0.5], gain=-0.1)
    for row in (*unknown, *worse):
        row["trial_key"] = f"other {row['trial_key']}"
    for row in unknown:
        row["trial_key"] = f"third {row['trial_key']}"
    found = overview(
        {"first": study(evener), "same": study(evener[:6]), "open": study(unknown), "worse": study(worse)}
    )
    assert [(each.study, each.comparisons) for each in found] == [
        ("first", 2),
        ("same", 1),
        ("open", 2),
        ("worse", 1),
        ("", 5),
        ("", 5),
    ]
    assert found[-2].variant == TCM  # which several studies have
    assert found[-2].inconsistency == found[-1].inconsistency
    total = found[-1]
    assert total.inconsistency == Counter(better=2, worse=1, undecided=2)
    assert total.accuracy == Counter(better=2, worse=1, undecided=2)
    # MAP@R 0.4 and 0.5, 0.4 and 0.3, but for the last digits: what is undecided is not among them
    assert [round(change, 2) for change in total.changes] == [-0.25, 0.25, 0.25]


def test_a_variant_that_no_seed_finished_is_left_out() -> None:
    rows = made_up([0.5, 0.2])
    for row in rows:
        if row["loss"] == "b" and row["variant"] == TCM:
            row["status"] = "missing"
    assert [each.comparisons for each in overview({"part": study(rows)})] == [1, 1]


def test_the_table_escapes_names_and_shows_the_counts() -> None:
    found = overview({"a|b <i>[red]": study(made_up([0.5, -0.2]))})
    text = markdown_overview(found)
    assert "`a\\|b <i>[red]`" in text
    assert "| over all |  | 2 | 1 / 1 / 0 | 2 / 0 / 0 |" in text
    out = io.StringIO()
    print_overview(found, Console(file=out, width=160))
    assert "1 / 1 / 0" in out.getvalue()
    assert "a|b <i>[red]" in out.getvalue()
    assert "negative_margin=0.5" in out.getvalue().replace("\n", "")
