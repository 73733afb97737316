import numpy as np

from dmlcore.core.seeding import keyed_generator


def draw(*key) -> list[int]:
    return keyed_generator(*key).integers(0, 2**62, 4).tolist()


def test_same_key_same_stream():
    assert draw(3, "augmentation", 7) == draw(3, "augmentation", 7)


def test_every_part_of_the_key_counts():
    # 2 x 3 and 3 x 2: where `seed * epoch` would meet.
    keys = [(2, "a", 3), (3, "a", 2), (2, "b", 3), (2, "a"), (2, "a", 3, 0), (23, "a"), (0, "a", 3)]
    assert len({tuple(draw(*key)) for key in keys}) == len(keys)


def test_numpy_integers_make_the_same_key():
    assert draw(np.int64(3), "a", np.int64(1)) == draw(3, "a", 1)
