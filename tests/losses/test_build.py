"""Building by name: what is refused, and how it is said."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from dmlcore.losses import LOSSES, REGULARIZERS, ThresholdConsistentMargin, build_loss, build_regularizer

SIZES = {"num_classes": 4, "embedding_dim": 3}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_defaults_build(name: str) -> None:
    assert isinstance(build_loss(name, **SIZES), LOSSES[name])


def test_tcm_is_a_regularizer() -> None:
    assert REGULARIZERS["tcm"] is ThresholdConsistentMargin
    assert build_regularizer("tcm", **SIZES, negative_margin=0.3).negative_margin == 0.3


@pytest.mark.parametrize(("build", "known"), [(build_loss, "proxy_anchor"), (build_regularizer, "tcm")])
def test_unknown_name_lists_the_known(build: Any, known: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown .*'nope'; known: .*{known}"):
        build("nope", **SIZES)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        (
            "contrastive",
            {"margin": 1},
            "no parameter `margin`, got 1; its parameters: positive_margin, negative_margin",
        ),
        (
            "contrastive",
            {"negative_margin": 3},
            "`contrastive.negative_margin` must be at least 0 and at most 2, got 3",
        ),
        ("smooth_ap", {"temperature": 0}, "`smooth_ap.temperature` must be above 0, got 0"),
        ("smooth_ap", {"temperature": "0.01"}, "must be a finite number, got '0.01'"),
        ("smooth_ap", {"temperature": float("nan")}, "must be a finite number, got nan"),
        ("supcon", {"temperature": True}, "must be a finite number, got True"),
        ("proxy_gml", {"proxies_per_class": 1.5}, "must be an integer, got 1.5"),
        ("proxy_gml", {"form": "cce"}, "`proxy_gml.form` must be one of 'softmax', 'bce', got 'cce'"),
        ("proxy_gml", {"num_embeddings": 3}, "no parameter `num_embeddings`"),
        ("recall_at_k", {"ks": 4}, "`recall_at_k.ks` must be a list of ranks, got 4"),
        ("recall_at_k", {"ks": [0, 1]}, "`recall_at_k.ks` must be at least 1, got 0"),
        (
            "recall_at_k",
            {"exclude_query": 1},
            "`recall_at_k.exclude_query` must be one of False, True, got 1",
        ),
    ],
)
def test_a_bad_parameter_is_named(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        build_loss(name, **SIZES, **params)
    assert message in str(caught.value)


def test_a_missing_parameter_is_named() -> None:
    with pytest.raises(ValueError, match="`language_guidance`: missing required parameter `text_embeddings`"):
        build_regularizer("language_guidance", **SIZES)


@pytest.mark.parametrize("texts", [torch.zeros(3, 2), torch.zeros(4), torch.full((4, 2), torch.nan)])
def test_text_embeddings_that_do_not_fit(texts: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="must be finite, \\[C, T\\] with C = num_classes = 4"):
        build_regularizer("language_guidance", **SIZES, text_embeddings=texts)


@pytest.mark.parametrize("name", ["norm_softmax", "proxy_anchor", "proxy_gml", "soft_triple"])
@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_without_a_proxy(name: str, label: int) -> None:
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.3"):
        build_loss(name, **SIZES)(torch.ones(2, 3), torch.tensor([0, label]))


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (
            torch.ones(2, 3, 1),
            torch.zeros(2, dtype=torch.long),
            "embeddings must be a non-empty float tensor",
        ),
        (torch.ones(0, 3), torch.zeros(0, dtype=torch.long), "embeddings must be a non-empty float tensor"),
        (
            torch.ones(2, 3),
            torch.zeros(3, dtype=torch.long),
            r"labels must be an integer tensor \[B\] = \[2\]",
        ),
        (torch.ones(2, 3), torch.zeros(2), "labels must be an integer tensor"),
    ],
)
def test_a_bad_batch(embeddings: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ThresholdConsistentMargin()(embeddings, labels)


def test_import_leaves_pytorch_metric_learning_alone() -> None:
    code = "import sys, dmlcore.losses; sys.exit('pytorch_metric_learning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_seed_decides_the_proxies() -> None:
    for name in LOSSES:
        drawn = []
        for _ in range(2):
            torch.manual_seed(9)
            drawn.append([parameter.detach() for parameter in build_loss(name, **SIZES).parameters()])
        torch.testing.assert_close(drawn[0], drawn[1], rtol=0, atol=0)
