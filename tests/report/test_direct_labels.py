"""Names next to points: the cost of a place as arrays against a loop, and that names keep clear of each other."""

from __future__ import annotations

import numpy as np

from dmlcore.metrics.plot import house_style, new_figure, settle_layout
from dmlcore.report.figures.labels import RINGS, _candidates, _costs, place_labels


def cost(box, ring, taken, frame, scale):
    """Naive loop for one box: area covered in square points, 100 a point outside the frame, 0.2 a point of distance."""
    covered = 0.0
    for other in taken:
        width = min(box[2], other[2]) - max(box[0], other[0])
        height = min(box[3], other[3]) - max(box[1], other[1])
        covered += max(width, 0.0) * max(height, 0.0) / scale**2
    beyond = sum(max(frame[i] - box[i], 0.0) + max(box[i + 2] - frame[i + 2], 0.0) for i in range(2))
    return covered + 100 * beyond / scale + 0.2 * ring


def boxes_of(random, count):
    low = random.uniform(-50, 450, (count, 2))
    return np.hstack([low, low + random.uniform(5, 150, (count, 2))])


def test_costs_are_those_of_a_loop():
    random = np.random.default_rng(0)
    boxes, taken, frame = boxes_of(random, 40), boxes_of(random, 25), np.array([0.0, 0.0, 400.0, 300.0])
    rings = random.uniform(0, 50, 40)
    expected = [cost(box, ring, taken, frame, 1.4) for box, ring in zip(boxes, rings, strict=True)]
    np.testing.assert_allclose(_costs(boxes, rings, taken, frame, 1.4), expected, rtol=1e-12)


def test_candidates_surround_the_point_the_nearest_first():
    at, size = np.array([100.0, 200.0]), np.array([30.0, 8.0])
    boxes, rings = _candidates(at, size, 2.0)
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], np.tile(size, (len(boxes), 1)))
    assert (np.diff(rings) >= 0).all()
    assert set(rings) == set(RINGS)
    nearest = np.clip(at, boxes[:, :2], boxes[:, 2:])
    gaps = np.hypot(*(nearest - at).T)
    assert (gaps > 0).all()
    assert (gaps <= 2.0 * rings + 1e-9).all()


def test_names_of_close_points_do_not_cover_each_other_nor_the_points():
    with house_style():
        figure = new_figure(6, 4)
        ax = figure.subplots()
        points = np.array([[0.5, 0.5], [0.52, 0.5], [0.5, 0.53], [0.54, 0.54]])
        ax.plot(*points.T, "o")
        ax.set(xlim=(0, 1), ylim=(0, 1))
        settle_layout(figure)
        names = [f"a loss {number}" for number in range(4)]
        place_labels(figure, ax, names, points, points, ["#000000"] * 4)
    boxes = [text.get_window_extent() for text in ax.texts]
    assert [text.get_text() for text in ax.texts] != []
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert not any(box.contains(*dot) for box in boxes for dot in ax.transData.transform(points))
