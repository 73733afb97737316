import numpy as np
import pytest
from test_inputs import jpegs, photograph

from dmlcore.data.images import JpegImages
from dmlcore.data.jpeg_bands import MCU_ROWS, cut_rows, read_header

SUBSAMPLINGS = ("4:2:0", "4:2:2", "4:4:4")
SHAPES = ((96, 128), (37, 50), (200, 17), (16, 16), (1, 1))


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_are_those_of_the_whole_image_to_the_bit(shape, subsampling):
    images = jpegs([photograph(*shape)], subsampling=subsampling)
    whole = images.read(0)
    assert whole.shape == (*shape, 3)
    for first in range(shape[0]):
        for last in {first + 1, min(first + 16, shape[0]), shape[0]}:
            assert np.array_equal(images.read_rows(0, first, last), whole[first:last])


@pytest.mark.parametrize(("subsampling", "mcu"), [("4:2:0", 16), ("4:2:2", 8), ("4:4:4", 8)])
def test_what_is_not_needed_is_not_decoded(subsampling, mcu):
    images = jpegs([photograph(128, 128)], subsampling=subsampling)
    file = images.encoded(0)
    header = read_header(file)
    assert header[MCU_ROWS] == mcu
    band, top = cut_rows(file, header, 50, 60)
    assert top == 48
    assert images.read_rows(0, 50, 60).base is not None
    assert read_header(band)[0] == 16
    assert len(band) < len(file) / 2


@pytest.mark.parametrize(
    "options",
    [
        {"restart_marker_rows": 0},
        {"restart_marker_rows": 2},
        {"restart_marker_rows": 0, "restart_marker_blocks": 1},
        {"restart_marker_rows": 1, "progressive": True},
    ],
)
def test_other_files_are_decoded_whole(options):
    images = jpegs([photograph(96, 128)], **options)
    assert read_header(images.encoded(0))[MCU_ROWS] == 0
    assert images.sizes(np.array([0])).tolist() == [[96, 128]]
    assert np.array_equal(images.read_rows(0, 30, 60), images.read(0)[30:60])


def test_sizes_are_read_from_the_headers():
    shapes = [(96, 128), (37, 50), (300, 1)]
    images = jpegs([photograph(*shape) for shape in shapes])
    assert images.sizes(np.array([2, 0, 1, 2])).tolist() == [[300, 1], [96, 128], [37, 50], [300, 1]]


def test_a_file_without_its_markers_is_decoded_whole():
    images = jpegs([photograph(96, 128)])
    file = images.encoded(0)
    cut = JpegImages(file[: len(file) // 2], images.offsets, images.lengths // 2)
    header = read_header(cut.encoded(0))
    assert len(cut_rows(cut.encoded(0), header, 80, 96)[0]) == 0
    assert np.array_equal(cut.read_rows(0, 0, 10), images.read(0)[:10])
