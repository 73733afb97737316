from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlcore.training.samplers import class_balanced_batches, random_batches

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=12)
NUMBERS = st.integers(0, 2**31)


def labels_of(sizes):
    # Shuffled, and with gaps between the label values.
    return np.random.default_rng(0).permutation(np.repeat(7 * np.arange(len(sizes)), sizes))


def balanced(sizes, classes, images, seed=0, epoch=0, num_batches=None):
    return class_balanced_batches(
        labels_of(sizes),
        batch_size=classes * images,
        images_per_class=images,
        seed=seed,
        epoch=epoch,
        num_batches=num_batches,
    )


@given(data=st.data(), sizes=SIZES, images=st.integers(1, 6), seed=NUMBERS, epoch=NUMBERS)
def test_batches_of_p_classes_and_k_images(data, sizes, images, seed, epoch):
    classes = data.draw(st.integers(1, len(sizes)))
    labels = labels_of(sizes)
    for batch in balanced(sizes, classes, images, seed, epoch):
        assert batch.dtype == np.int64
        assert len(set(batch.tolist())) == len(batch) <= classes * images
        drawn = Counter(labels[batch].tolist())
        assert len(drawn) == classes
        assert all(count == min(images, sizes[label // 7]) for label, count in drawn.items())


@given(data=st.data(), sizes=SIZES, images=st.integers(1, 6), seed=NUMBERS, epoch=NUMBERS)
def test_the_same_seed_and_epoch_give_the_same_batches(data, sizes, images, seed, epoch):
    classes = data.draw(st.integers(1, len(sizes)))
    first, second = (balanced(sizes, classes, images, seed, epoch) for _ in range(2))
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in second]


@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=12), rounds=st.integers(1, 5))
def test_every_class_comes_up_equally_often(sizes, rounds):
    labels = labels_of(sizes)
    batches = balanced(sizes, len(sizes), 1, num_batches=rounds)
    assert set(Counter(labels[np.concatenate(batches)].tolist()).values()) == {rounds}


def test_a_class_gives_all_its_images_before_one_returns():
    batches = balanced([8, 8], 2, 4, num_batches=2)
    assert sorted(np.concatenate(batches).tolist()) == list(range(16))


@pytest.mark.parametrize(("seed", "epoch"), [(1, 0), (0, 1)])
def test_seeds_and_epochs_differ(seed, epoch):
    one, other = balanced([8] * 20, 5, 4), balanced([8] * 20, 5, 4, seed, epoch)
    assert [batch.tolist() for batch in one] != [batch.tolist() for batch in other]


def test_swapping_seed_and_epoch_gives_other_batches():
    one, other = balanced([8] * 20, 5, 4, 2, 3), balanced([8] * 20, 5, 4, 3, 2)
    assert [batch.tolist() for batch in one] != [batch.tolist() for batch in other]


@pytest.mark.parametrize(
    ("sizes", "classes", "images", "expected"),
    [([16] * 32, 8, 4, 16), ([2] * 32, 8, 4, 4), ([1] * 3, 3, 4, 1)],  # 512 / 32; 64 / 16; 3 / 3
)
def test_an_epoch_is_about_one_pass(sizes, classes, images, expected):
    assert len(balanced(sizes, classes, images)) == expected


def test_batches_may_be_counted():
    assert len(balanced([4] * 8, 4, 2, num_batches=11)) == 11


def test_too_few_classes_are_refused():
    with pytest.raises(
        ValueError, match="takes 4 classes x 4 images, but there are 3 classes; set batch_size to 12"
    ):
        balanced([9] * 3, 4, 4)


def test_a_batch_size_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"multiple of images_per_class \(4\), got 90"):
        class_balanced_batches(labels_of([9] * 30), batch_size=90, images_per_class=4, seed=0, epoch=0)


@given(num_images=st.integers(1, 60), data=st.data(), seed=NUMBERS, epoch=NUMBERS)
def test_random_batches_pass_over_the_images(num_images, data, seed, epoch):
    size = data.draw(st.integers(1, num_images))
    batches = random_batches(num_images, batch_size=size, seed=seed, epoch=epoch)
    drawn = np.concatenate(batches)
    assert {len(batch) for batch in batches} == {size}
    assert len(set(drawn.tolist())) == len(drawn) == num_images // size * size
    again = random_batches(num_images, batch_size=size, seed=seed, epoch=epoch)
    assert np.array_equal(drawn, np.concatenate(again))


def test_random_batches_differ_by_epoch_and_go_on_past_one_pass():
    one, other = (random_batches(40, batch_size=10, seed=0, epoch=epoch, num_batches=9) for epoch in (0, 1))
    assert len(one) == 9
    assert not np.array_equal(np.concatenate(one), np.concatenate(other))


@pytest.mark.parametrize("size", [0, 11])
def test_random_batches_refuse_a_size_that_does_not_fit(size):
    with pytest.raises(ValueError, match=r"from 1 to the number of images \(10\)"):
        random_batches(10, batch_size=size, seed=0, epoch=0)
