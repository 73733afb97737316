"""pytorch-metric-learning: agreement where it is right, and its losses by name."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from dmlcore.losses import build_loss
from dmlcore.losses.pml import pml_losses
from tests.losses.cases import NUM_CLASSES, WIDTH, batch, build, value_and_gradient

BALANCED = (3, 1, 3, 0, 1, 0, 3, 1, 0, 0, 1, 3)
EUCLIDEAN = {"name": "LpDistance", "normalize_embeddings": False}
SQUARED = {"name": "LpDistance", "power": 2}
NEEDED: dict[str, dict[str, Any]] = {  # arguments without a default
    "CrossBatchMemory": {"loss": {"name": "ContrastiveLoss", "neg_margin": 0.7}, "memory_size": 64},
    "HistogramLoss": {"n_bins": 20},
    "ManifoldLoss": {"K": 4},
    "MultipleLosses": {"losses": [{"name": "CircleLoss"}, {"name": "ContrastiveLoss"}]},
    "RankedListLoss": {"margin": 0.4, "Tn": 1},
}
# Ours -> theirs where science says that theirs is right: name, arguments, tensors to copy.
SAME: list[tuple[str, str, str, dict[str, Any], dict[str, str]]] = [
    ("loss", "arcface", "ArcFaceLoss", {"margin": 0.5 * 180 / torch.pi}, {"W": "proxies"}),
    ("loss", "circle", "CircleLoss", {}, {}),
    ("loss", "contrastive", "ContrastiveLoss", {}, {}),
    ("loss", "cosface", "CosFaceLoss", {}, {"W": "proxies"}),
    ("loss", "lifted_structure", "LiftedStructureLoss", {"distance": EUCLIDEAN}, {}),
    ("loss", "multi_similarity", "MultiSimilarityLoss", {"miner": {"name": "MultiSimilarityMiner"}}, {}),
    ("loss", "norm_softmax", "NormalizedSoftmaxLoss", {}, {"W": "proxies"}),
    ("loss", "proxy_anchor", "ProxyAnchorLoss", {}, {"proxies": "proxies"}),
    ("loss", "proxy_nca_pp", "ProxyNCALoss", {"softmax_scale": 9}, {"proxies": "proxies"}),
    ("loss", "supcon", "SupConLoss", {}, {}),
    (
        "loss",
        "triplet",
        "TripletMarginLoss",
        {
            "margin": 0.2,
            "distance": SQUARED,
            "miner": {
                "name": "TripletMarginMiner",
                "margin": 0.2,
                "type_of_triplets": "semihard",
                "distance": SQUARED,
            },
        },
        {},
    ),
    ("regularizer", "tcm", "ThresholdConsistentMarginLoss", {}, {}),
]


@pytest.mark.parametrize(
    ("kind", "name", "theirs", "params", "tensors"), SAME, ids=[case[1] for case in SAME]
)
def test_equals_pytorch_metric_learning(
    kind: str, name: str, theirs: str, params: dict[str, Any], tensors: dict[str, str]
) -> None:
    ours = build(kind, name)
    other = build_loss(f"pml:{theirs}", num_classes=NUM_CLASSES, embedding_dim=WIDTH, **params).double()
    for their_tensor, our_tensor in tensors.items():
        target = getattr(other.loss, their_tensor)
        source = getattr(ours, our_tensor).detach()
        target.data = source if target.shape == source.shape else source.T
    embeddings, labels = batch()
    mine, reference = (
        value_and_gradient(ours, embeddings, labels),
        value_and_gradient(other, embeddings, labels),
    )
    torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-5)


def test_their_smooth_ap_differs_on_unequal_numbers() -> None:
    """Right only where the batch has as many classes as images a class: the reason why ours exists."""
    theirs = build_loss("pml:SmoothAPLoss", num_classes=NUM_CLASSES, embedding_dim=WIDTH).double()
    ours = build("loss", "smooth_ap")
    embeddings, labels = batch(labels=BALANCED)  # 3 classes x 4 images
    assert abs(theirs(embeddings, labels) - ours(embeddings, labels)) > 1e-3


@pytest.mark.filterwarnings(
    "ignore:Using a non-tuple sequence", "ignore:__array_wrap__", "ignore:Values of Tp or Tn"
)
@pytest.mark.parametrize("name", sorted(pml_losses()))
def test_every_one_builds_and_has_a_gradient(name: str) -> None:
    loss = build_loss(f"pml:{name}", num_classes=NUM_CLASSES, embedding_dim=WIDTH, **NEEDED.get(name, {}))
    value, gradient = value_and_gradient(loss, *batch(torch.float32, BALANCED))
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert gradient.any()


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("NopeLoss", {}, "unknown pytorch-metric-learning losses 'NopeLoss'; known: AngularLoss"),
        ("VICRegLoss", {}, "compares two views"),
        ("CircleLoss", {"n": 1}, "`pml:CircleLoss` has no parameter `n`, got 1; its parameters: "),
        ("ProxyAnchorLoss", {"num_classes_": 1}, "has no parameter `num_classes_`"),
        ("ProxyAnchorLoss", {"embedding_size": 9}, "has no parameter `embedding_size`"),
        ("RankedListLoss", {"margin": 0.4}, "is missing the required parameters Tn"),
        ("ContrastiveLoss", {"distance": "LpDistance"}, "`distance` must be a mapping with a `name`"),
        (
            "ContrastiveLoss",
            {"distance": {"name": "Nope"}},
            "unknown pytorch-metric-learning distances 'Nope'",
        ),
        ("CircleLoss", {"distance": {"name": "LpDistance"}}, "`pml:CircleLoss` rejected its parameters"),
    ],
)
def test_a_bad_name_or_argument(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        build_loss(f"pml:{name}", num_classes=4, embedding_dim=3, **params)
    assert message in str(caught.value)


def test_arguments_reach_the_class() -> None:
    with warnings.catch_warnings():
        loss = build_loss("pml:CircleLoss", num_classes=4, embedding_dim=3, m=0.1, gamma=7)
    assert (loss.loss.m, loss.loss.gamma) == (0.1, 7)
