"""The classes that one threshold serves worst and best, with example images."""

from __future__ import annotations

import numpy as np

from dmlcore.analysis.metric_labels import round_significant
from dmlcore.report.html.images import Pictures
from dmlcore.report.html.stored import Integers, Pair
from dmlcore.report.html.table import Table, TableCell, TableRow, int_cell, text_cell

SHOWN = 6
"""Classes at each end."""


EXAMPLES = 4


def extreme_classes(pair: Pair) -> list[tuple[str, int]]:
    """(`worst` or `best`, label) of the classes with the lowest and the highest mean utility with the regulariser.

    The worst first; of equals the one with the lower label.
    """
    order = np.argsort(pair.on.utility, kind="stable")
    shown = min(SHOWN, len(order) // 2)
    worst, best = order[:shown], order[len(order) - shown :]
    labels = pair.on.class_labels
    return [("worst", int(labels[i])) for i in worst] + [("best", int(labels[i])) for i in best]


def class_table(pair: Pair, pictures: Pictures) -> Table:
    """One row a class: its images, its mean utility off and on, its error rates with the regulariser."""
    return Table(
        "classes",
        "Utility: harmonic mean of the shares of the class's same-class pairs accepted and of its other pairs "
        "rejected, mean over the calibration range of thresholds. FRR, FAR: shares falsely rejected and falsely "
        "accepted with the regulariser, at the one distance where 1 % of all other pairs are accepted.",
        ["served", "class", "examples", "images", "utility off", "utility on", "change", "FRR on", "FAR on"],
        [_row(pair, pictures, kind, label) for kind, label in extreme_classes(pair)],
    )


def _row(pair: Pair, pictures: Pictures, kind: str, label: int) -> TableRow:
    members = np.flatnonzero(pair.labels == label)
    at = int(np.searchsorted(pair.on.class_labels, label))
    baseline, on = float(pair.baseline.utility[at]), float(pair.on.utility[at])
    name = pictures.name(int(pair.index[members[0]]), label)
    return TableRow(
        [
            text_cell(kind, kind),
            text_cell(name),
            TableCell("", None, images=_examples(pair, pictures, members, name)),
            int_cell(len(members)),
            *(_share(value) for value in (baseline, on)),
            TableCell(f"{on - baseline:+.4f}", round_significant(on - baseline)),
            *(_share(float(rates[at])) for rates in (pair.on.frr, pair.on.far)),
        ]
    )


def _examples(pair: Pair, pictures: Pictures, members: Integers, name: str) -> list[tuple[str, str]]:
    found = ((row, pictures.picture(row)) for row in pair.index[members[:EXAMPLES]].tolist())
    return [(address, f"{name}, image {row}") for row, address in found if address]


def _share(value: float) -> TableCell:
    return TableCell(f"{value:.4f}", round_significant(value))
