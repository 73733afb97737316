"""The class-sorted batch and its chunks."""

from __future__ import annotations

import torch

from dmlcore.losses import pairs


def test_sorted_by_class_small_classes_first() -> None:
    labels = torch.tensor([7, -2, 7, 9, 7, 9, 5, -2])
    order, groups = pairs.sort_by_class(labels)
    assert labels[order].tolist() == [5, -2, -2, 9, 9, 7, 7, 7]
    assert groups == [pairs.ClassGroup(0, 1, 1), pairs.ClassGroup(1, 2, 2), pairs.ClassGroup(5, 1, 3)]


def test_blocks_are_views_of_the_diagonal() -> None:
    matrix = torch.arange(64.0).view(8, 8)
    block = pairs.class_blocks(matrix, pairs.ClassGroup(1, 2, 3))
    torch.testing.assert_close(block, torch.stack([matrix[1:4, 1:4], matrix[4:7, 4:7]]))
    block.zero_()
    assert not matrix[1:4, 1:4].any()


def test_query_chunks_cover_each_query_once_within_the_budget(monkeypatch) -> None:
    """A class too large for one chunk is cut by queries: all of it at once would take n^2 B numbers."""
    monkeypatch.setattr(pairs, "CHUNK_ELEMENTS_CPU", 5000 // torch.get_num_threads())
    groups = [pairs.ClassGroup(0, 3, 1), pairs.ClassGroup(3, 20, 2), pairs.ClassGroup(43, 1, 57)]
    matrix = torch.empty(100, 100)
    seen = []
    for chunk, queries in pairs.query_chunks(groups, matrix):
        number = queries.stop - queries.start
        needed = chunk.num_classes * number * (chunk.size - 1) * 100
        assert needed <= max(5000, (chunk.size - 1) * 100)
        for c in range(chunk.num_classes):
            seen += range(
                chunk.start + c * chunk.size + queries.start, chunk.start + c * chunk.size + queries.stop
            )
    assert sorted(seen) == list(range(3, 100))
