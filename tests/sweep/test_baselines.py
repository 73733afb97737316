"""The raw-pixel baseline: measured once per pixels and code, null where a metric is undefined."""

from __future__ import annotations

import json
import math

import pytest

from dmlcore.sweep import baselines
from dmlcore.sweep.baselines import raw_pixel_baseline
from tests.small import small_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_dataset(tmp_path_factory.mktemp("data") / "small")


def test_the_pixels_are_measured_once(data, tmp_path, monkeypatch):
    first = raw_pixel_baseline(data, tmp_path)
    assert 0.0 < first["test/recall_at_1"] <= 1.0
    monkeypatch.setattr(baselines, "raw_pixel_metrics", lambda *_: pytest.fail("measured again"))
    assert raw_pixel_baseline(data, tmp_path) == first


@pytest.mark.parametrize("damage", ["", "[1, 2]", '{"key": "another", "metrics": {"test/recall_at_1": 1.0}}'])
def test_a_file_that_is_damaged_or_of_other_pixels_is_replaced(data, tmp_path, damage):
    first = raw_pixel_baseline(data, tmp_path)
    file = tmp_path / f"{data.folder.name}.json"
    file.write_text(damage)
    assert raw_pixel_baseline(data, tmp_path) == first
    assert json.loads(file.read_text())["metrics"] == first


def test_an_undefined_metric_is_null(data, tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "raw_pixel_metrics", lambda *_: {"test/opis_corrected": math.nan})
    assert raw_pixel_baseline(data, tmp_path) == {"test/opis_corrected": None}
