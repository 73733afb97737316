"""A test half of queries and a gallery, and groups within classes: while training and from stored files."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dmlcore.config.data import PreprocessConfig, SplitConfig
from dmlcore.data.dataset import PreparedDataset
from dmlcore.datasets.prepare.build import prepare
from dmlcore.metrics.evaluation import evaluate
from dmlcore.sweep.baselines import raw_pixel_metrics
from dmlcore.training import run_trial
from dmlcore.training.evaluation import evaluate_stored
from dmlcore.training.store import TrialStore
from tests.small import SIDE, small_catalogue, small_trial


@pytest.fixture(scope="module")
def shop(small_data, tmp_path_factory):
    """The small data set, every third image of a test class a query, the others the gallery."""
    folder = tmp_path_factory.mktemp("shop") / "shop"
    test = set(small_data.split("test").class_names)
    plain = small_catalogue()

    def role(item):
        if item.class_name not in test:
            return "both"
        return "query" if int(item.source.split("/")[1]) % 3 == 0 else "gallery"

    items = {replace(item, role=role(item)): item for item in plain.items}
    catalogue = replace(plain, items=tuple(items), read=lambda item: plain.read(items[item]))
    config = PreprocessConfig(image_size=SIDE, split=SplitConfig(test_share=0.34, validation_share=0.25))
    prepare("shop", catalogue, config, folder)
    return PreparedDataset.open(folder)


def test_queries_search_the_gallery_alone(shop, tmp_path):
    store = TrialStore(tmp_path / "trial")
    config = small_trial()
    result = run_trial(config, shop, store=store)
    stored = store.load("test")
    queries = stored["is_query"]
    assert 0 < int(queries.sum()) < len(queries)
    assert queries.tolist() == [role == "query" for role in shop.split("test").roles]
    expected = evaluate(stored["embeddings"], stored["labels"], is_query=queries).metrics
    assert result.metrics["test/map_at_r"] == pytest.approx(expected["map_at_r"])
    assert result.metrics["test/num_queries"] == int(queries.sum())
    assert result.metrics["untrained/num_queries"] == int(queries.sum())
    leave_one_out = evaluate(stored["embeddings"], stored["labels"]).metrics
    assert result.metrics["test/map_at_r"] != pytest.approx(leave_one_out["map_at_r"])
    assert evaluate_stored(store.load, config.evaluation)[0]["test/opis"] == result.metrics["test/opis"]
    assert "is_query" not in store.load("validation")


@pytest.fixture(scope="module")
def encounters(tmp_path_factory):
    """The small data set, two images of each class to an encounter."""
    folder, plain = tmp_path_factory.mktemp("encounters") / "encounters", small_catalogue()
    items = {replace(item, group=f"day {int(item.source.split('/')[1]) // 2}"): item for item in plain.items}
    catalogue = replace(plain, items=tuple(items), read=lambda item: plain.read(items[item]))
    config = PreprocessConfig(image_size=SIDE, split=SplitConfig(test_share=0.34, validation_share=0.25))
    prepare("encounters", catalogue, config, folder)
    return PreparedDataset.open(folder)


def test_groups_are_no_pairs_in_any_evaluation(encounters, tmp_path):
    store, config = TrialStore(tmp_path / "trial"), small_trial()
    result = run_trial(config, encounters, store=store)
    stored = store.load("test")
    assert stored["groups"].tolist() == encounters.split("test").groups.tolist()
    expected = evaluate(stored["embeddings"], stored["labels"], groups=stored["groups"]).metrics
    assert result.metrics["test/map_at_r"] == pytest.approx(expected["map_at_r"])
    assert result.metrics["test/opis"] == pytest.approx(expected["opis"])
    for split in ("test", "validation", "untrained"):
        assert result.metrics[f"{split}/num_groups"] == 3
    assert all(report.metrics.get("validation/num_groups", 3) == 3 for report in result.curve)
    without = evaluate(stored["embeddings"], stored["labels"]).metrics
    assert result.metrics["test/map_at_r"] != pytest.approx(without["map_at_r"])
    assert evaluate_stored(store.load, config.evaluation)[0]["test/opis"] == result.metrics["test/opis"]
    raw = raw_pixel_metrics(encounters.split("test"), config.evaluation)
    assert raw["test/num_groups"] == 3
