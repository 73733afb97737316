"""A 2-D map of the test embeddings, baseline next to variant: their two principal components, nothing random in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmlcore.report.html.classes import extreme_classes
from dmlcore.report.html.escaping import plot_text
from dmlcore.report.html.images import Pictures
from dmlcore.report.html.stored import Floats, Pair, Side
from dmlcore.report.html.tradeoff import variant_text

BACKGROUND = 1_000
"""Images of other classes, every n-th, drawn small and grey: as many as a browser draws at once without a delay."""


MARKS = ("circle", "square", "triangle-up", "diamond", "cross", "x")


def principal_components(points: Floats) -> tuple[Floats, float]:
    """The two directions of greatest variance.

    A direction has two signs: the one is taken whose largest entry is positive.

    Args:
        points: [N, D].

    Returns:
        [N, 2] coordinates about the mean; the share of the variance that they keep.
    """
    centred = points - points.mean(axis=0)
    variances, directions = np.linalg.eigh(centred.T @ centred)
    kept = directions[:, ::-1][:, :2]
    signs = np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])])
    total = float(variances.sum())
    return centred @ (kept * signs), float(variances[-2:].sum()) / total if total > 0 else 0.0


def map_data(pair: Pair, pictures: Pictures) -> dict[str, Any]:
    """Points of the worst and best classes by name, of the others a part."""
    classes = extreme_classes(pair)
    others = np.flatnonzero(~np.isin(pair.labels, [label for _, label in classes]))
    places = others[:: max(1, -(-len(others) // BACKGROUND))]
    groups = []
    for i, (kind, label) in enumerate(classes):
        members = np.flatnonzero(pair.labels == label)
        name = plot_text(f"{kind}: {pictures.name(int(pair.index[members[0]]), label)}")
        groups.append({"name": name, "kind": kind, "symbol": MARKS[i % len(MARKS)], "places": members})
    sides = [_side(side, groups, places) for side in (pair.baseline, pair.on)]
    return {"sides": sides, "text": plot_text(pair.text)}


def _side(side: Side, groups: list[dict[str, Any]], others: Any) -> dict[str, Any]:
    points, share = principal_components(side.embeddings)
    shown = [
        {key: value for key, value in group.items() if key != "places"} | _xy(points[group["places"]])
        for group in groups
    ]
    heading = f"{plot_text(variant_text(side.variant))}<br>{100 * share:.0f} % of the variance"
    return {"heading": heading, "others": _xy(points[others]), "groups": shown}


def _xy(points: Floats) -> dict[str, list[float]]:
    """Three decimals: of a unit sphere a pixel."""
    return {"x": np.round(points[:, 0], 3).tolist(), "y": np.round(points[:, 1], 3).tolist()}
