import numpy as np
import pytest
from PIL import Image

from dmlcore.datasets.prepare.near_duplicates import NEIGHBOURS, RADIUS, difference_hash, near_pairs
from tests.shared import shared_data


def any_two(one, other):
    return np.ones((len(one), 1), bool)


def bits(one, other):
    return int(np.unpackbits(one ^ other).sum())


def random_hashes(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 16), np.uint8)


def flipped(hashes, count, random):
    copy = np.unpackbits(hashes)
    copy[random.choice(128, count, replace=False)] ^= 1
    return np.packbits(copy)


def test_the_hash_says_where_it_gets_brighter():
    ramp = np.tile(np.arange(0, 252, 7, dtype=np.uint8), (36, 1))  # brighter to the right, even downwards
    assert difference_hash(Image.fromarray(ramp)) == b"\xff" * 8 + b"\x00" * 8
    assert difference_hash(Image.fromarray(ramp.T.copy())) == b"\x00" * 8 + b"\xff" * 8
    assert difference_hash(Image.fromarray(ramp).convert("RGB")) == b"\xff" * 8 + b"\x00" * 8


def test_pairs_are_those_of_a_double_loop():
    random = np.random.default_rng(1)
    hashes = random_hashes(300)
    for row in range(0, 300, 3):  # 5 bits and fewer share a part for certain
        hashes[row] = flipped(hashes[row + 1], row % 6, random)
    expected = [
        (i, j, bits(hashes[i], hashes[j]))
        for i in range(300)
        for j in range(i + 1, 300)
        if bits(hashes[i], hashes[j]) <= 5
    ]
    found = near_pairs(hashes, any_two, radius=5, limit=1000)
    assert [tuple(row) for row in found.first.tolist()] == expected
    assert len(expected) == found.counts.item() == 100
    assert found.skipped == 0


def test_most_pairs_at_the_radius_are_found_and_none_beyond():
    random = np.random.default_rng(2)
    hashes = random_hashes(2000)
    for row in range(0, 2000, 2):
        hashes[row] = flipped(hashes[row + 1], RADIUS if row % 4 else RADIUS + 1, random)
    found = near_pairs(hashes, any_two, limit=5000)
    assert set(found.first[:, 2].tolist()) == {RADIUS}
    assert 0.85 <= found.counts.item() / 500 <= 0.93  # 0.886: 8 bits thrown at 6 parts leave one untouched


def test_kinds_are_counted_apart_and_pairs_of_none_left_out():
    hashes = np.repeat(random_hashes(1), 4, axis=0)
    split, label = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])

    def kinds(one, other):
        return np.stack([split[one] != split[other], label[one] != label[other]], axis=1)

    found = near_pairs(hashes, kinds)
    assert found.counts.tolist() == [4, 3]
    assert found.first.tolist() == [[0, 2, 0], [0, 3, 0], [1, 2, 0], [1, 3, 0], [2, 3, 0]]


def test_the_first_pairs_are_listed():
    hashes = np.repeat(random_hashes(1), 30, axis=0)
    found = near_pairs(hashes, any_two, limit=7)
    assert found.counts.item() == 30 * 29 / 2
    assert found.first.tolist() == [[0, other, 0] for other in range(1, 8)]


def test_a_crowd_is_not_compared_with_all_and_that_is_said():
    count = 1000
    found = near_pairs(np.zeros((count, 16), np.uint8), any_two)
    assert found.counts.item() < count * NEIGHBOURS
    assert found.skipped == count - NEIGHBOURS


def test_equal_hashes_are_looked_for_among_equals_alone():
    hashes = random_hashes(1000)
    hashes[:, :12] = 0  # all share five of six parts
    hashes[900:] = hashes[:100]
    found = near_pairs(hashes, any_two, radius=0)
    assert found.first.tolist() == [[row, row + 900, 0] for row in range(100)]
    assert (found.counts.item(), found.skipped) == (100, 0)


def test_copies_of_photographs_are_near_and_other_products_are_not():
    folder = shared_data("grocery") / "images"
    products = sorted(path for path in folder.iterdir() if path.is_dir())
    images = [Image.open(min(product.glob("*.jpg"))).convert("RGB") for product in products]
    halves = [image.reduce(2) for image in images]
    hashes = np.array([list(difference_hash(image)) for image in images + halves], np.uint8)
    found = near_pairs(hashes, any_two, limit=1000)
    same = found.first[:, 1] - found.first[:, 0] == len(images)
    assert same.all()
    assert same.sum() > 0.9 * len(images)


@pytest.mark.parametrize("count", [0, 1])
def test_few_images_have_no_pairs(count):
    assert near_pairs(random_hashes(count), any_two).counts.item() == 0
