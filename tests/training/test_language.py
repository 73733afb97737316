"""Text embeddings for language guidance: of class names, or of what a classifier sees."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from dmlcore.config.trial import ComponentConfig
from dmlcore.training.language import (
    class_probabilities,
    dummy_text_embeddings,
    imagenet_names,
    loss_params,
    texts_of,
)


def part(**params):
    return ComponentConfig(name="language_guidance", params=params)


@pytest.fixture
def encoder(monkeypatch):
    """A text model that needs no download: letters counted."""

    def encode(names, *, cache, model="m", template="{}"):
        counts = [[name.lower().count(chr(97 + letter)) + 0.01 for letter in range(26)] for name in names]
        return torch.nn.functional.normalize(torch.tensor(counts), dim=1)

    monkeypatch.setattr("dmlcore.training.language.class_text_embeddings", encode)
    return encode


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "classifier.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    return str(path)


def test_imagenet_has_a_thousand_names():
    names = imagenet_names()
    assert len(names) == 1000
    assert names[:2] == ["tench", "goldfish"]


def test_pseudo_labels_are_the_names_that_the_classifier_ranks_first(small_data, tmp_path, encoder, weights):
    split = small_data.split("train")
    found = texts_of(small_data, "train", tmp_path)(
        part(classifier="test_resnet", classifier_weights=weights, top=3)
    )
    probabilities = class_probabilities(
        split, "test_resnet", identity="small", cache=tmp_path, weights=weights
    )
    words = encoder(imagenet_names(), cache=tmp_path)
    for label in range(len(split.class_names)):
        mean = probabilities[torch.as_tensor(split.labels) == label].mean(dim=0)
        expected = words[mean.topk(3).indices].flatten() / 3**0.5
        torch.testing.assert_close(found[label], expected)


def test_probabilities_are_computed_once(small_data, tmp_path, weights, monkeypatch):
    split = small_data.split("train")
    first = class_probabilities(split, "test_resnet", identity="small", cache=tmp_path, weights=weights)
    torch.testing.assert_close(first.sum(dim=1), torch.ones(len(first)))
    monkeypatch.setattr("dmlcore.training.language._softmax", None)
    assert torch.equal(
        class_probabilities(split, "test_resnet", identity="small", cache=tmp_path, weights=weights), first
    )


def test_an_unknown_classifier_is_refused(small_data, tmp_path):
    with pytest.raises(ValueError, match="must be a timm model"):
        class_probabilities(small_data.split("train"), "resnet5000", identity="small", cache=tmp_path)


def test_only_the_losses_own_params_reach_it():
    params = loss_params(
        part(omega=2.0, text_model="m", template="a {}", classifier="c"), dummy_text_embeddings(3)
    )
    assert params.keys() == {"omega", "text_embeddings"}
    assert loss_params(
        ComponentConfig(name="tcm", params={"positive_margin": 0.8}), dummy_text_embeddings(3)
    ) == {"positive_margin": 0.8}
