import numpy as np
import pytest

from dmlcore.data.jpeg import ACROSS, DOWN, HEIGHT, SEGMENTS, WIDTH, JpegImages, cut_box, read_header
from tests.training.test_input_pipeline import jpegs, photograph

SUBSAMPLINGS = ("4:2:0", "4:2:2", "4:4:4")
SHAPES = ((96, 128), (37, 50), (200, 17), (16, 16), (1, 1))


@pytest.mark.parametrize(
    "markers", [{}, {"restart_marker_blocks": 0, "restart_marker_rows": 1}], ids=["units", "rows"]
)
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_box_is_that_of_the_whole_image_to_the_bit(shape, subsampling, markers):
    images = jpegs([photograph(*shape)], subsampling=subsampling, **markers)
    whole = images.read(0)
    assert whole.shape == (*shape, 3)
    rng = np.random.default_rng(0)
    for _ in range(300):
        (top, left), (bottom, right) = np.sort(rng.integers(0, np.add(shape, 1), (2, 2)), axis=0)
        bottom, right = max(bottom, top + 1), max(right, left + 1)
        height, width = min(bottom, shape[0]) - top, min(right, shape[1]) - left
        if height > 0 and width > 0:
            box = images.read_box(0, (top, left, height, width))
            assert np.array_equal(box, whole[top : top + height, left : left + width])


@pytest.mark.parametrize(
    ("subsampling", "down", "across"), [("4:2:0", 16, 16), ("4:2:2", 8, 16), ("4:4:4", 8, 8)]
)
def test_what_is_not_needed_is_not_decoded(subsampling, down, across):
    file = jpegs([photograph(128, 128)], subsampling=subsampling).encoded(0)
    header = read_header(file)
    assert (header[DOWN], header[ACROSS]) == (down, across)
    part, row, column = cut_box(file, header, 50, 66, 60, 78)
    assert (row, column) == (48, 64)
    assert read_header(part)[[HEIGHT, WIDTH]].tolist() == [16, 16]
    assert len(part) < len(file) / 2


@pytest.mark.parametrize(
    "options",
    [
        {"restart_marker_blocks": 0},
        {"restart_marker_blocks": 3},
        {"progressive": True},
    ],
)
def test_other_files_are_decoded_whole(options):
    images = jpegs([photograph(96, 128)], **options)
    assert read_header(images.encoded(0))[SEGMENTS] == 0
    assert images.sizes(np.array([0])).tolist() == [[96, 128]]
    assert np.array_equal(images.read_box(0, (30, 20, 30, 9)), images.read(0)[30:60, 20:29])


def test_sizes_are_read_from_the_headers():
    shapes = [(96, 128), (37, 50), (300, 1)]
    images = jpegs([photograph(*shape) for shape in shapes])
    assert images.sizes(np.array([2, 0, 1, 2])).tolist() == [[300, 1], [96, 128], [37, 50], [300, 1]]


def test_a_file_without_its_markers_is_decoded_whole():
    images = jpegs([photograph(96, 128)])
    file = images.encoded(0)
    cut = JpegImages(file[: len(file) // 2], images.offsets, images.lengths // 2)
    header = read_header(cut.encoded(0))
    assert len(cut_box(cut.encoded(0), header, 80, 0, 96, 128)[0]) == 0
    assert np.array_equal(cut.read_box(0, (0, 0, 10, 128)), images.read(0)[:10])
