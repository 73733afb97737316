"""Classes, queries and the map against naive loops over the stored embeddings; and what is said without them."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from dmlcore.analysis.study import Study
from dmlcore.data.dataset import PreparedDataset
from dmlcore.metrics.evaluation import evaluate
from dmlcore.report.html.charts import principal_components
from dmlcore.report.html.examples import first_correct_ranks, hardest_queries
from dmlcore.report.html.page import report_html
from dmlcore.report.html.stored import PairedEmbeddings, extreme_classes, paired_embeddings
from tests.analysis.synthetic import TCM, rows, study
from tests.report.html.made import Page, stored_study


@pytest.fixture(scope="module")
def made(small_data: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return stored_study(small_data, tmp_path_factory.mktemp("storage"))


@pytest.fixture(scope="module")
def page(made: Study) -> Page:
    return Page(report_html(made))


def tensors(made: Study, variant: str) -> dict[str, Any]:
    """The stored file of seed 0."""
    key = made.trials.filter(loss="smooth_ap", variant=variant, seed=0)["trial_key"][0]
    assert made.storage is not None
    return load_file(made.storage / key.split("-")[0] / "test.safetensors")


def distances(points: np.ndarray) -> np.ndarray:
    unit = points.astype(np.float64) / np.linalg.norm(points.astype(np.float64), axis=1, keepdims=True)
    return np.array([[float(np.linalg.norm(a - b)) for b in unit] for a in unit])


def naive_utility(points: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Mean utility over the range from FAR 0.01 to 0.1, pair by pair."""
    found, pairs = distances(points), [(i, j) for i in range(len(labels)) for j in range(i)]
    negative = sorted(found[i, j] for i, j in pairs if labels[i] != labels[j])
    low, high = (negative[int(np.ceil(far * len(negative))) - 1] for far in (0.01, 0.1))
    thresholds, utility = np.linspace(low, high, 101), {}
    for c in sorted(set(labels.tolist())):
        own = np.array([found[i, j] for i, j in pairs if labels[i] == labels[j] == c])
        other = np.array([found[i, j] for i, j in pairs if (labels[i] == c) != (labels[j] == c)])
        curve = []
        for t in thresholds:
            psi, phi = np.mean(own <= t), np.mean(other > t)
            curve.append(2 * phi * psi / (phi + psi) if phi + psi else 0.0)
        utility[c] = float(np.trapezoid(curve, thresholds) / (high - low))
    return utility


def naive_rank(found: np.ndarray, labels: np.ndarray, query: int) -> int:
    own = min(found[query, j] for j in range(len(labels)) if j != query and labels[j] == labels[query])
    return 1 + sum(found[query, j] < own for j in range(len(labels)) if labels[j] != labels[query])


def test_classes_equal_a_naive_loop(made: Study, page: Page, small_data: PreparedDataset) -> None:
    labels = tensors(made, "baseline")["labels"]
    baseline, variant = (
        naive_utility(tensors(made, name)["embeddings"], labels) for name in ("baseline", TCM)
    )
    names = small_data.split("test").class_names
    order = sorted(variant, key=lambda c: variant[c])
    half = len(order) // 2 if len(order) < 12 else 6
    shown = page.table("classes")
    assert [row["class"].text for row in shown] == [
        names[c] for c in order[:half] + order[len(order) - half :]
    ]
    for row in shown:
        c = names.index(row["class"].text)
        assert float(row["baseline utility"].value or "nan") == pytest.approx(baseline[c], abs=1e-5)
        assert float(row["variant utility"].value or "nan") == pytest.approx(variant[c], abs=1e-5)
        assert float(row["change"].value or "nan") == pytest.approx(variant[c] - baseline[c], abs=2e-5)
        assert row["images"].value == str(int(np.sum(labels == c)))


def test_queries_equal_a_naive_loop(made: Study, page: Page, small_data: PreparedDataset) -> None:
    stored = tensors(made, TCM)
    labels, index, found = stored["labels"], stored["index"], distances(stored["embeddings"])
    before = distances(tensors(made, "baseline")["embeddings"])
    ranks = [naive_rank(found, labels, q) for q in range(len(labels))]
    worst = sorted((q for q in range(len(labels)) if ranks[q] > 1), key=lambda q: (-ranks[q], q))[:8]
    shown = page.table("queries")
    assert [int(row["query"].value or -1) for row in shown] == [index[q] for q in worst]
    for row, q in zip(shown, worst, strict=True):
        assert row["variant rank"].value == str(ranks[q])
        assert row["baseline rank"].value == str(naive_rank(before, labels, q))
        others = sorted((j for j in range(len(labels)) if labels[j] != labels[q]), key=lambda j: found[q, j])
        expected = others[: min(5, ranks[q] - 1)]
        assert row["wrong neighbours"].value == ",".join(str(index[j]) for j in expected)
        names = small_data.split("test").class_names
        assert row["their classes"].text == "; ".join(names[labels[j]] for j in expected)


def test_images_are_those_of_the_data_set(page: Page, small_data: PreparedDataset) -> None:
    split = small_data.split("test")
    for row in page.table("queries"):
        (address,) = row["query"].images
        with Image.open(io.BytesIO(base64.b64decode(address.split(",", 1)[1]))) as image:
            pixels = np.asarray(image)
        expected = split.images.read(int(row["query"].value or -1) - int(split.index[0]))
        assert np.array_equal(pixels, expected[:, :, 0])
    assert all(len(row["examples"].images) == 4 for row in page.table("classes"))


def test_only_the_gallery_is_searched_and_only_queries_ask(
    small_data: PreparedDataset, tmp_path: Path
) -> None:
    count = len(small_data.split("test").labels)
    is_query = np.arange(count) % 2 == 0
    pair = paired_embeddings(stored_study(small_data, tmp_path, is_query=is_query))
    assert isinstance(pair, PairedEmbeddings)
    ranks = first_correct_ranks(pair, pair.variant)
    assert np.array_equal(ranks > 0, is_query)
    found = distances(pair.variant.embeddings)
    gallery = np.flatnonzero(~is_query)
    for q in np.flatnonzero(is_query):
        own = min(found[q, j] for j in gallery if pair.labels[j] == pair.labels[q])
        assert ranks[q] == 1 + sum(found[q, j] < own for j in gallery if pair.labels[j] != pair.labels[q])
    assert all(is_query[q.position] and not is_query[q.wrong].any() for q in hardest_queries(pair))


def test_no_neighbour_is_of_the_query_s_class_and_group(small_data: PreparedDataset, tmp_path: Path) -> None:
    groups = np.arange(len(small_data.split("test").labels)) % 3
    pair = paired_embeddings(stored_study(small_data, tmp_path, groups=groups))
    assert isinstance(pair, PairedEmbeddings)
    ranks, found = first_correct_ranks(pair, pair.variant), distances(pair.variant.embeddings)
    everyone = range(len(groups))
    for q in everyone:
        own = min(
            found[q, j] for j in everyone if pair.labels[j] == pair.labels[q] and groups[j] != groups[q]
        )
        assert ranks[q] == 1 + sum(found[q, j] < own for j in everyone if pair.labels[j] != pair.labels[q])
    metrics = evaluate(pair.variant.embeddings, pair.labels, groups=groups)
    assert np.array_equal(pair.variant.frr, metrics.frr)


def test_the_map_keeps_the_variance_of_the_two_first_components(made: Study) -> None:
    points = tensors(made, TCM)["embeddings"].astype(np.float64)
    found, share = principal_components(points)
    values = np.linalg.svd(points - points.mean(axis=0), compute_uv=False) ** 2
    assert share == pytest.approx(values[:2].sum() / values.sum())
    assert np.var(found, axis=0) * len(points) == pytest.approx(values[:2])


def test_the_map_shows_every_image_of_its_classes(made: Study, page: Page) -> None:
    pair = paired_embeddings(made)
    assert isinstance(pair, PairedEmbeddings)
    for trial, stored in zip(page.data["map"]["trials"], (pair.baseline, pair.variant), strict=True):
        points, _ = principal_components(stored.embeddings)
        for group, (_, label) in zip(trial["groups"], extreme_classes(pair), strict=True):
            shown = np.stack([group["x"], group["y"]], axis=1)
            assert shown == pytest.approx(points[pair.labels == label], abs=6e-4)


def test_what_is_not_here_is_left_out_with_the_reason(made: Study, tmp_path: Path) -> None:
    gone = Page(report_html(replace(made, storage=tmp_path / "gone")))
    assert "the stored embeddings of the trials are not on this machine" in gone.html
    assert {"classes", "queries"} & set(gone.tables) == set()
    assert gone.data["map"] is None
    assert "Left out" in report_html(study(rows(("a",), ("vit",), ("ap",))))
    bare = Page(report_html(replace(made, prepared=tmp_path)))
    assert "the prepared data set is not on this machine" in bare.html
    assert not any(tag == "img" for tag, _ in bare.tags)
    assert all(row["class"].text.startswith("class ") for row in bare.table("classes"))


@pytest.mark.parametrize("damage", ["bit", "cut", "no record"])
def test_embeddings_that_were_changed_are_left_out(
    small_data: PreparedDataset, tmp_path: Path, damage: str
) -> None:
    made = stored_study(small_data, tmp_path)
    assert isinstance(paired_embeddings(made), PairedEmbeddings)
    for file in tmp_path.glob("*/test.safetensors"):
        content = file.read_bytes()
        changed = content[:-3] + bytes([content[-3] ^ 1]) + content[-2:] if damage == "bit" else content[:100]
        file.write_bytes(content if damage == "no record" else changed)
    if damage == "no record":
        made = replace(made, records=tmp_path / "elsewhere")
    assert "do not have the checksums of their records" in Page(report_html(made)).html


def test_pictures_of_another_data_set_are_not_shown(made: Study) -> None:
    other = json.loads(json.dumps(made.datasets)) | {}
    other["small"]["data_hash"] = "0" * 64
    page = Page(report_html(replace(made, datasets=other)))
    assert "is not the one that the trials were trained on" in page.html
    assert not any(tag == "img" for tag, _ in page.tags)
