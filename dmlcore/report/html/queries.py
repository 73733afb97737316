"""The queries whose first right answer comes latest, and the wrong images that come before it.

Shapes: N test images, Q queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dmlcore.report.html.images import Pictures
from dmlcore.report.html.stored import Floats, Integers, Pair, Side
from dmlcore.report.html.table import Table, TableCell, TableRow, int_cell, text_cell

SHOWN, NEIGHBOURS = 8, 5


BLOCK = 512
"""Queries at once: 512 x 20,000 similarities are 80 MB."""


@dataclass(frozen=True)
class Query:
    place: int
    """In the stored embeddings."""
    first_right: int
    """Rank of the nearest image of its class with the regulariser, from 1."""
    first_right_off: int
    wrong: list[int]
    """The nearest images, all of other classes, at most NEIGHBOURS; places in the stored embeddings."""


def worst_queries(pair: Pair) -> list[Query]:
    """The queries with the highest rank of the first right answer with the regulariser; of equals the first."""
    ranks = first_right_ranks(pair, pair.on)
    known = np.flatnonzero(ranks > 1)
    worst = known[np.argsort(-ranks[known], kind="stable")][:SHOWN]
    before = first_right_ranks(pair, pair.baseline)
    return [_query(pair, int(place), int(ranks[place]), int(before[place])) for place in worst]


def first_right_ranks(pair: Pair, side: Side) -> Integers:
    """Rank of each query's nearest gallery image of its class.

    Rank: 1 + the number of gallery images of other classes that are strictly more similar.

    Returns:
        [N], 0 for what is no query or has no right answer.
    """
    ranks = np.zeros(len(pair.labels), np.int64)
    for places, similarity in _blocks(pair, side):
        same = pair.labels[places][:, None] == pair.labels[None, :]
        right = np.where(same, similarity, -np.inf).max(axis=1)
        nearer = np.sum(~same & (similarity > right[:, None]), axis=1)
        ranks[places] = np.where(np.isfinite(right), 1 + nearer, 0)
    return ranks


def query_table(pair: Pair, pictures: Pictures) -> Table:
    """One row a query: where its first right answer stands off and on, and what stands before it."""
    return Table(
        "queries",
        "Queries whose nearest image of their own class stands furthest down with the regulariser, and the images that "
        "come first instead, nearest first. Place 1 would be right.",
        ["query", "class", "first right off", "first right on", "wrong neighbours", "their classes"],
        [_row(pair, pictures, query) for query in worst_queries(pair)],
    )


def _blocks(pair: Pair, side: Side) -> Iterator[tuple[Integers, Floats]]:
    """Places of queries, and their similarity to every image; -inf for itself and for what is not in the gallery."""
    count = len(pair.labels)
    queries = np.arange(count) if pair.is_query is None else np.flatnonzero(pair.is_query)
    for start in range(0, len(queries), BLOCK):
        places = queries[start : start + BLOCK]
        similarity = side.embeddings[places] @ side.embeddings.T
        similarity[np.arange(len(places)), places] = -np.inf
        if pair.is_query is not None:
            similarity[:, pair.is_query] = -np.inf
        yield places, similarity


def _query(pair: Pair, place: int, rank: int, rank_off: int) -> Query:
    similarity = pair.on.embeddings @ pair.on.embeddings[place]
    similarity[pair.labels == pair.labels[place]] = -np.inf
    if pair.is_query is not None:
        similarity[pair.is_query] = -np.inf
    nearest = np.argsort(-similarity, kind="stable")[: min(NEIGHBOURS, rank - 1)]
    return Query(place, rank, rank_off, nearest.tolist())


def _row(pair: Pair, pictures: Pictures, query: Query) -> TableRow:
    names = [_name(pair, pictures, place) for place in query.wrong]
    return TableRow(
        [
            _shown(pair, pictures, [query.place]),
            text_cell(_name(pair, pictures, query.place)),
            int_cell(query.first_right_off),
            int_cell(query.first_right),
            _shown(pair, pictures, query.wrong),
            text_cell("; ".join(names)),
        ]
    )


def _shown(pair: Pair, pictures: Pictures, places: list[int]) -> TableCell:
    """The images, or their rows of the manifest where there are none."""
    rows = [int(pair.index[place]) for place in places]
    found = zip(places, (pictures.picture(row) for row in rows), strict=True)
    images = [(address, _name(pair, pictures, place)) for place, address in found if address]
    value = ",".join(map(str, rows))
    return TableCell("" if images else f"image {value}", value, images=images)


def _name(pair: Pair, pictures: Pictures, place: int) -> str:
    return pictures.name(int(pair.index[place]), int(pair.labels[place]))
