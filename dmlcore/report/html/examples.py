"""The closer look at one pair of trials: the classes served worst and best, the hardest queries, a map.

Shapes: N test images, Q queries, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmlcore.analysis.metric_labels import round_significant
from dmlcore.analysis.study import Study
from dmlcore.report.figures.panels import variant_title
from dmlcore.report.html.escaping import plot_text
from dmlcore.report.html.stored import (
    DatasetImages,
    Floats,
    Integers,
    PairedEmbeddings,
    VariantEmbeddings,
    dataset_images,
    paired_embeddings,
)
from dmlcore.report.html.tables import Table, TableCell, TableRow, int_cell, text_cell, word_cell

CLASSES_PER_END, IMAGES_PER_CLASS = 6, 4
QUERIES, NEIGHBOURS = 8, 5

QUERY_BLOCK = 512
"""Queries at once: 512 x 20,000 similarities are 80 MB."""

BACKGROUND = 1_000
"""Images of other classes, every n-th, drawn small and grey: as many as a browser draws at once without a delay."""

SYMBOLS = ("circle", "square", "triangle-up", "diamond", "cross", "x")


@dataclass(frozen=True)
class HardQuery:
    """A query whose nearest gallery image of its own class comes late; positions are those in the stored embeddings."""

    position: int
    baseline_rank: int
    variant_rank: int
    """Rank of the first correct image, from 1."""
    wrong: list[int]
    """The nearest images, all of other classes, at most NEIGHBOURS."""


@dataclass(frozen=True)
class ExamplesSection:
    """What the section shows; without stored embeddings its introduction alone, which says why."""

    introduction: str
    classes: Table | None = None
    queries: Table | None = None
    map: dict[str, Any] | None = None


def examples_section(study: Study) -> ExamplesSection:
    """Look into the stored embeddings of the most accurate configuration."""
    pair = paired_embeddings(study)
    if isinstance(pair, str):
        return ExamplesSection(pair)
    images = dataset_images(study, pair)
    text = (
        f"Of one pair of trials, the most accurate configuration: {pair.text}. {images.missing or ''}".strip()
    )
    return ExamplesSection(text, class_table(pair, images), query_table(pair, images), map_data(pair, images))


def extreme_classes(pair: PairedEmbeddings) -> list[tuple[str, int]]:
    """Find the classes with the lowest and the highest mean utility in the variant.

    Returns:
        (`worst` or `best`, label), the worst first; of equals the one with the lower label.
    """
    order = np.argsort(pair.variant.utility, kind="stable")
    count = min(CLASSES_PER_END, len(order) // 2)
    labels = pair.variant.class_labels[np.r_[order[:count], order[len(order) - count :]]].tolist()
    return list(zip(["worst"] * count + ["best"] * count, labels, strict=True))


def class_table(pair: PairedEmbeddings, images: DatasetImages) -> Table:
    """Tabulate the extreme classes: images, mean utility of baseline and variant, error rates of the variant."""
    return Table(
        "classes",
        "Utility: harmonic mean of the shares of the class's same-class pairs accepted and of its other pairs "
        "rejected, mean over the calibration range of thresholds. FRR, FAR: shares falsely rejected and falsely "
        "accepted by the variant, at the one distance where 1 % of all other pairs are accepted.",
        [
            *("served", "class", "examples", "images"),
            *("baseline utility", "variant utility", "change", "variant FRR", "variant FAR"),
        ],
        [_class_row(pair, images, kind, label) for kind, label in extreme_classes(pair)],
    )


def _class_row(pair: PairedEmbeddings, images: DatasetImages, kind: str, label: int) -> TableRow:
    members = np.flatnonzero(pair.labels == label)
    at = int(np.searchsorted(pair.variant.class_labels, label))
    baseline, variant = float(pair.baseline.utility[at]), float(pair.variant.utility[at])
    name = _class_name(pair, images, members[0])
    examples = ((row, images.thumbnail(row)) for row in pair.index[members[:IMAGES_PER_CLASS]].tolist())
    rates = (float(values[at]) for values in (pair.variant.frr, pair.variant.far))
    return TableRow(
        [
            word_cell(kind),
            text_cell(name),
            TableCell("", None, images=[(url, f"{name}, image {row}") for row, url in examples if url]),
            int_cell(len(members)),
            *(TableCell(f"{value:.4f}", round_significant(value)) for value in (baseline, variant)),
            TableCell(f"{variant - baseline:+.4f}", round_significant(variant - baseline)),
            *(TableCell(f"{rate:.4f}", round_significant(rate)) for rate in rates),
        ]
    )


def hardest_queries(pair: PairedEmbeddings) -> list[HardQuery]:
    """Find the queries with the highest rank of the first correct image in the variant; of equals the first."""
    ranks, before = (first_correct_ranks(pair, trial) for trial in (pair.variant, pair.baseline))
    known = np.flatnonzero(ranks > 1)
    worst = known[np.argsort(-ranks[known], kind="stable")][:QUERIES]
    return [
        HardQuery(at, int(before[at]), int(ranks[at]), _wrong_neighbours(pair, at, int(ranks[at])))
        for at in worst.tolist()
    ]


def first_correct_ranks(pair: PairedEmbeddings, trial: VariantEmbeddings) -> Integers:
    """Rank each query's nearest gallery image of its class.

    Rank: 1 + the number of gallery images of other classes that are strictly more similar.

    Returns:
        [N], 0 for images that are not queries or have no correct image.
    """
    ranks = np.zeros(len(pair.labels), np.int64)
    for queries, similarity in _query_blocks(pair, trial):
        same = pair.labels[queries][:, None] == pair.labels[None, :]
        correct = np.where(same, similarity, -np.inf).max(axis=1)
        nearer = np.sum(~same & (similarity > correct[:, None]), axis=1)
        ranks[queries] = np.where(np.isfinite(correct), 1 + nearer, 0)
    return ranks


def _query_blocks(pair: PairedEmbeddings, trial: VariantEmbeddings) -> Iterator[tuple[Integers, Floats]]:
    """Yield positions of queries [Q] and their similarity to every image [Q, N].

    It is -inf for the query itself and for images outside of the gallery, so that neither is ever a neighbour.
    """
    queries = np.arange(len(pair.labels)) if pair.is_query is None else np.flatnonzero(pair.is_query)
    for start in range(0, len(queries), QUERY_BLOCK):
        block = queries[start : start + QUERY_BLOCK]
        similarity = trial.embeddings[block] @ trial.embeddings.T
        similarity[np.arange(len(block)), block] = -np.inf
        if pair.is_query is not None:
            similarity[:, pair.is_query] = -np.inf
        yield block, similarity


def _wrong_neighbours(pair: PairedEmbeddings, query: int, rank: int) -> list[int]:
    similarity = pair.variant.embeddings @ pair.variant.embeddings[query]
    similarity[pair.labels == pair.labels[query]] = -np.inf
    if pair.is_query is not None:
        similarity[pair.is_query] = -np.inf
    nearest: list[int] = np.argsort(-similarity, kind="stable")[: min(NEIGHBOURS, rank - 1)].tolist()
    return nearest


def query_table(pair: PairedEmbeddings, images: DatasetImages) -> Table:
    """Tabulate the hardest queries: the rank of the first correct image, and the wrong ones that come before it."""
    rows = [
        TableRow(
            [
                _thumbnails(pair, images, [query.position]),
                text_cell(_class_name(pair, images, query.position)),
                int_cell(query.baseline_rank),
                int_cell(query.variant_rank),
                _thumbnails(pair, images, query.wrong),
                text_cell("; ".join(_class_name(pair, images, at) for at in query.wrong)),
            ]
        )
        for query in hardest_queries(pair)
    ]
    return Table(
        "queries",
        "Queries whose first correct image, the nearest of their own class, ranks lowest in the variant, and the "
        "images that come before it, nearest first. Rank 1 would be right.",
        ["query", "class", "baseline rank", "variant rank", "wrong neighbours", "their classes"],
        rows,
    )


def _thumbnails(pair: PairedEmbeddings, images: DatasetImages, positions: Sequence[int]) -> TableCell:
    """Show the images, or their rows of the manifest where the data set is missing."""
    rows = [int(pair.index[at]) for at in positions]
    found = zip(positions, (images.thumbnail(row) for row in rows), strict=True)
    shown = [(url, _class_name(pair, images, at)) for at, url in found if url]
    value = ",".join(map(str, rows))
    return TableCell("" if shown else f"image {value}", value, images=shown)


def _class_name(pair: PairedEmbeddings, images: DatasetImages, position: int) -> str:
    return images.class_name(int(pair.index[position]), int(pair.labels[position]))


def principal_components(points: Floats) -> tuple[Floats, float]:
    """Project on the two directions of greatest variance.

    Args:
        points: [N, D].

    Returns:
        [N, 2] coordinates about the mean; the share of the variance that they keep.
    """
    centred = points - points.mean(axis=0)
    variances, directions = np.linalg.eigh(centred.T @ centred)
    kept = directions[:, ::-1][:, :2]
    # an eigenvector is known up to its sign: a positive largest entry makes the map the same on every machine
    signs = np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])])
    total = float(variances.sum())
    return centred @ (kept * signs), float(variances[-2:].sum()) / total if total > 0 else 0.0


def map_data(pair: PairedEmbeddings, images: DatasetImages) -> dict[str, Any]:
    """Project baseline and variant: the extreme classes by name, of the other images every n-th as background."""
    classes = extreme_classes(pair)
    others = np.flatnonzero(~np.isin(pair.labels, [label for _, label in classes]))
    others = others[:: max(1, -(-len(others) // BACKGROUND))]
    trials = []
    for trial in (pair.baseline, pair.variant):
        points, share = principal_components(trial.embeddings)
        groups = []
        for i, (kind, label) in enumerate(classes):
            members = np.flatnonzero(pair.labels == label)
            name = plot_text(f"{kind}: {_class_name(pair, images, members[0])}")
            symbol = SYMBOLS[i % len(SYMBOLS)]
            groups.append({"name": name, "kind": kind, "symbol": symbol, **_xy(points[members])})
        heading = f"{plot_text(variant_title(trial.variant))}<br>{100 * share:.0f} % of the variance"
        trials.append({"heading": heading, "others": _xy(points[others]), "groups": groups})
    return {"trials": trials}


def _xy(points: Floats) -> dict[str, list[float]]:
    """Three decimals: of a unit sphere a pixel."""
    return {"x": np.round(points[:, 0], 3).tolist(), "y": np.round(points[:, 1], 3).tolist()}
