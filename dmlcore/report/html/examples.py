"""The closer look at one pair of trials: the classes served worst and best, the hardest queries.

Shapes: N test images, Q queries, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmlcore.analysis.metric_labels import round_significant
from dmlcore.analysis.study import Study
from dmlcore.report.html.charts import map_data
from dmlcore.report.html.stored import (
    DatasetImages,
    Floats,
    Integers,
    PairedEmbeddings,
    VariantEmbeddings,
    dataset_images,
    extreme_classes,
    paired_embeddings,
)
from dmlcore.report.html.tables import Table, TableCell, TableRow, int_cell, text_cell, word_cell

IMAGES_PER_CLASS = 4
QUERIES, NEIGHBOURS = 8, 5

QUERY_BLOCK = 512
"""Queries at once: 512 x 20,000 similarities are 80 MB."""


@dataclass(frozen=True)
class HardQuery:
    """A query whose nearest gallery image of its own class comes late; positions are those in the stored embeddings."""

    position: int
    baseline_rank: int
    variant_rank: int
    """Rank of the first correct image, from 1."""
    wrong: list[int]
    """The nearest images, all of other classes, at most NEIGHBOURS."""


def examples_section(study: Study) -> dict[str, Any]:
    """Look into the stored embeddings of the most accurate configuration.

    Returns:
        introduction, tables of classes and queries, map; without embeddings the introduction alone, which says why.
    """
    pair = paired_embeddings(study)
    if isinstance(pair, str):
        return {"introduction": pair, "classes": None, "queries": None, "map": None}
    images = dataset_images(study, pair)
    text = f"Of one pair of trials, the most accurate configuration: {pair.text}. {images.missing or ''}"
    return {
        "introduction": text.strip(),
        "classes": class_table(pair, images),
        "queries": query_table(pair, images),
        "map": map_data(pair, images),
    }


def class_table(pair: PairedEmbeddings, images: DatasetImages) -> Table:
    """Tabulate the extreme classes: images, mean utility of baseline and variant, error rates of the variant."""
    caption = (
        "Utility: harmonic mean of the shares of the class's same-class pairs accepted and of its other pairs "
        "rejected, mean over the calibration range of thresholds. FRR, FAR: shares falsely rejected and falsely "
        "accepted by the variant, at the one distance where 1 % of all other pairs are accepted."
    )
    columns = ["served", "class", "examples", "images", "baseline utility", "variant utility", "change"]
    rows = [_class_row(pair, images, kind, label) for kind, label in extreme_classes(pair)]
    return Table("classes", caption, [*columns, "variant FRR", "variant FAR"], rows)


def _class_row(pair: PairedEmbeddings, images: DatasetImages, kind: str, label: int) -> TableRow:
    members = np.flatnonzero(pair.labels == label)
    at = int(np.searchsorted(pair.variant.class_labels, label))
    baseline, variant = float(pair.baseline.utility[at]), float(pair.variant.utility[at])
    name = images.class_name(pair, members[0])
    examples = ((row, images.thumbnail(row)) for row in pair.index[members[:IMAGES_PER_CLASS]].tolist())
    shown = [(url, f"{name}, image {row}") for row, url in examples if url]
    cells = [word_cell(kind), text_cell(name), TableCell("", images=shown), int_cell(len(members))]
    cells += [_share_cell(baseline), _share_cell(variant), _share_cell(variant - baseline, "+")]
    return TableRow([*cells, *(_share_cell(float(v[at])) for v in (pair.variant.frr, pair.variant.far))])


def _share_cell(value: float, sign: str = "") -> TableCell:
    return TableCell(f"{value:{sign}.4f}", round_significant(value))


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
    queries = np.arange(len(pair.labels)) if pair.is_query is None else np.flatnonzero(pair.is_query)
    for start in range(0, len(queries), QUERY_BLOCK):
        block = queries[start : start + QUERY_BLOCK]
        similarity = _similarity(pair, trial, block)
        same = pair.labels[block][:, None] == pair.labels[None, :]
        correct = np.where(same, similarity, -np.inf).max(axis=1)
        nearer = np.sum(~same & (similarity > correct[:, None]), axis=1)
        ranks[block] = np.where(np.isfinite(correct), 1 + nearer, 0)
    return ranks


def _similarity(pair: PairedEmbeddings, trial: VariantEmbeddings, queries: Integers) -> Floats:
    """Compare queries, [Q] positions, with every image: [Q, N].

    It is -inf for the query itself, for images outside of the gallery and for those of its own class and group, so that
    none is ever a neighbour.
    """
    similarity: Floats = trial.embeddings[queries] @ trial.embeddings.T
    similarity[np.arange(len(queries)), queries] = -np.inf
    if pair.is_query is not None:
        similarity[:, pair.is_query] = -np.inf
    if pair.groups is not None:
        labels, groups = pair.labels, pair.groups
        similarity[(labels[queries, None] == labels) & (groups[queries, None] == groups)] = -np.inf
    return similarity


def _wrong_neighbours(pair: PairedEmbeddings, query: int, rank: int) -> list[int]:
    similarity = _similarity(pair, pair.variant, np.array([query]))[0]
    similarity[pair.labels == pair.labels[query]] = -np.inf
    nearest: list[int] = np.argsort(-similarity, kind="stable")[: min(NEIGHBOURS, rank - 1)].tolist()
    return nearest


def query_table(pair: PairedEmbeddings, images: DatasetImages) -> Table:
    """Tabulate the hardest queries: the rank of the first correct image, and the wrong ones that come before it."""
    caption = (
        "Queries whose first correct image, the nearest of their own class, ranks lowest in the variant, and the "
        "images that come before it, nearest first. Rank 1 would be right."
    )
    columns = ["query", "class", "baseline rank", "variant rank", "wrong neighbours", "their classes"]
    rows = []
    for query in hardest_queries(pair):
        cells = [*_images_and_classes(pair, images, [query.position])]
        cells += [int_cell(query.baseline_rank), int_cell(query.variant_rank)]
        rows.append(TableRow([*cells, *_images_and_classes(pair, images, query.wrong)]))
    return Table("queries", caption, columns, rows)


def _images_and_classes(
    pair: PairedEmbeddings, images: DatasetImages, positions: Sequence[int]
) -> tuple[TableCell, TableCell]:
    """Show the images, or their rows of the manifest where the data set is missing, and name their classes."""
    rows, names = pair.index[positions].tolist(), [images.class_name(pair, at) for at in positions]
    found = zip(map(images.thumbnail, rows), names, strict=True)
    shown = [(url, name) for url, name in found if url]
    value = ",".join(map(str, rows))
    return TableCell("" if shown else f"image {value}", value, images=shown), text_cell("; ".join(names))
