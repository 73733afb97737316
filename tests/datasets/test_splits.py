from collections import defaultdict

import pytest

from dmlcore.config.data import SplitConfig
from dmlcore.core.errors import DataError
from dmlcore.datasets.prepare.catalogue import Item
from dmlcore.datasets.prepare.splits import assign_splits, hash_order


def splits_by(items, config, attribute="class_name"):
    found = defaultdict(set)
    for item, split in zip(items, assign_splits(items, config), strict=True):
        found[getattr(item, attribute)].add(split)
    return found


def counts(found):
    return [sum(splits == {name} for splits in found.values()) for name in ("train", "validation", "test")]


def test_hashed_shares(noise):
    assert counts(splits_by(noise.items, SplitConfig())) == [6, 2, 8]


def test_hashed_ignores_the_order_of_the_items(noise):
    assert splits_by(noise.items, SplitConfig()) == splits_by(noise.items[::-1], SplitConfig())


def test_seeds_differ(noise):
    assert splits_by(noise.items, SplitConfig(seed=1)) != splits_by(noise.items, SplitConfig())


def test_super_classes_stay_whole(noise):
    found = splits_by(noise.items, SplitConfig(unit="super_class"), "super_class")
    assert counts(found) == [3, 1, 4]


def test_scripts_train_on_latin_alone():
    items = [
        Item(f"{s}{n}", f"{s}/x", f"{s}{n}", f"{s}{n}")
        for s in ("Latin", "Greek", "Common")
        for n in range(8)
    ]
    found = splits_by(items, SplitConfig(rule="scripts"))
    assert counts(found) == [5, 3, 16]
    assert all((found[item.class_name] == {"test"}) == (item.super_class != "Latin/x") for item in items)


def test_listed(noise):
    config = SplitConfig(rule="listed", test=("class 3", "class 4"), validation=("class 0",))
    found = splits_by(noise.items, config)
    assert counts(found) == [13, 1, 2]
    assert found["class 3"] == {"test"}
    assert found["class 0"] == {"validation"}


def test_listed_super_classes(noise):
    config = SplitConfig(rule="listed", unit="super_class", test=("super 1",), validation=("super 0",))
    assert counts(splits_by(noise.items, config, "super_class")) == [6, 1, 1]


@pytest.mark.parametrize(
    ("test", "validation", "message"),
    [
        (("absent",), ("class 0",), "no class is called 'absent'"),
        (("class 0",), ("class 0",), "name each once"),
    ],
)
def test_listed_names_are_checked(noise, test, validation, message):
    with pytest.raises(DataError, match=message):
        assign_splits(noise.items, SplitConfig(rule="listed", test=test, validation=validation))


def test_closed_divides_the_images_of_every_class(noise):
    config = SplitConfig(protocol="closed", test_share=0.4, validation_share=0.3)
    assert all(found == {"train", "validation", "test"} for found in splits_by(noise.items, config).values())


def published(train, test):
    """Two items a class, the classes of a published split."""
    classes = [(name, "train") for name in train] + [(name, "test") for name in test]
    return [
        Item(name, name[0], f"{name}/{number}", split_text=name, official=half)
        for name, half in classes
        for number in range(2)
    ]


def test_official_tests_on_the_published_half_and_validates_within_the_other():
    train, test = [f"a{number}" for number in range(10)], [f"b{number}" for number in range(30)]
    found = splits_by(published(train, test), SplitConfig(rule="official", validation_share=0.125))
    assert counts(found) == [5, 5, 30]  # An eighth of all 40 classes validates.
    assert {name for name, splits in found.items() if splits == {"test"}} == set(test)
    ordered = hash_order(train, 0)
    assert {name for name, splits in found.items() if splits == {"validation"}} == set(ordered[:5])
    other = splits_by(published(train, test), SplitConfig(rule="official", validation_share=0.125, seed=1))
    assert counts(other) == [5, 5, 30]
    assert other != found


def test_official_keeps_super_classes_whole_where_the_published_halves_do():
    config = SplitConfig(rule="official", unit="super_class", validation_share=0.25)
    found = splits_by(published(["a1", "a2", "c1"], ["b1", "d1"]), config, "super_class")
    assert found["b"] == found["d"] == {"test"}
    assert sorted(found["a"] | found["c"]) == ["train", "validation"]
    with pytest.raises(DataError, match="super_class 'a' is in both published halves; use unit `class`"):
        assign_splits(published(["a1"], ["a2"]), config)


def test_official_needs_a_published_split(noise):
    with pytest.raises(DataError, match="no published split; use rule `hashed`"):
        assign_splits(noise.items, SplitConfig(rule="official"))
