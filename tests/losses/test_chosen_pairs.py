"""Pairs of a miner and references, as pytorch-metric-learning passes them: naive float64 twins, and its losses."""

from __future__ import annotations

import warnings

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from torch import Tensor

from dmlcore.losses.pml import STANDS_FOR, to_pml
from tests.losses.cases import BUILDERS, CASES, COMPONENTS, LABELS, WIDTH, batch, build, value_and_gradient
from tests.reference import chosen_pairs
from tests.reference.chosen_pairs import CHOSEN

TAKING = [part for part in COMPONENTS if part[1] in CHOSEN]
SETTINGS = [(*part, setting) for part in TAKING for setting in range(len(CASES[part[1]].settings))]
each_taking = pytest.mark.parametrize(("kind", "name"), TAKING)
# An asymmetric choice: pairs listed twice, anchors with only positives (9), only negatives (3) or none (7).
PAIRS = tuple(
    torch.tensor(part)
    for part in ([0, 0, 2, 1, 9, 0, 6], [2, 5, 0, 8, 5, 2, 4], [0, 0, 1, 3, 2, 0], [1, 3, 0, 6, 4, 1])
)
TRIPLETS = tuple(torch.tensor(part) for part in ([0, 0, 5, 1, 0], [2, 2, 9, 4, 5], [1, 3, 4, 0, 1]))


def references(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    vectors = torch.randn(12, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(21))
    return vectors.to(dtype).requires_grad_(), torch.tensor([1, 4, 4, 0, 2, 1, 5, 0, 4, 1, 3, 0])


def as_lists(indices: tuple[Tensor, ...]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    rows = [part.tolist() for part in indices]
    anchors = rows[-2] if len(rows) == 4 else rows[0]
    return list(zip(rows[0], rows[1], strict=True)), list(zip(anchors, rows[-1], strict=True))


def check(loss, name, setting, indices, with_references):
    (x, labels), (y, ref_labels) = batch(), references()
    if not with_references:
        y, ref_labels = x, labels
    inputs = [x, y] if with_references else [x]
    extra = (y, ref_labels) if with_references else ()
    value = loss(x, labels, indices, *extra)
    gradients = torch.autograd.grad(value, [*inputs, *loss.parameters()])
    settings = dict(CASES[name].settings[setting]) | dict(loss.named_parameters())
    if name == "triplet" and len(indices) == 3:
        chosen = list(zip(*(part.tolist() for part in indices), strict=True))
        want = chosen_pairs.triplets(x, y, chosen, **settings)
    else:
        within = {"within": not with_references} if name == "lifted_structure" else {}
        want = CHOSEN[name](x, y, *as_lists(indices), **settings, **within)
    assert want != 0
    torch.testing.assert_close(value, want, rtol=1e-10, atol=1e-12)
    expected = torch.autograd.grad(want, [*inputs, *loss.parameters()])
    torch.testing.assert_close(gradients, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("with_references", [False, True])
@pytest.mark.parametrize("indices", [PAIRS, TRIPLETS], ids=["pairs", "triplets"])
@pytest.mark.parametrize(("kind", "name", "setting"), SETTINGS)
def test_the_pairs_of_a_miner_are_used_as_they_are(kind, name, setting, indices, with_references):
    check(build(kind, name, setting=setting), name, setting, indices, with_references)


@pytest.mark.parametrize(("kind", "name", "setting"), SETTINGS)
def test_references_alone_are_compared_with_each_anchor(kind, name, setting):
    """As all pairs listed; triplet and multi-similarity mine among them as they do within a batch."""
    loss = build(kind, name, setting=setting)
    (x, labels), (y, ref_labels) = batch(), references()
    same = labels.unsqueeze(1) == ref_labels
    indices = (*torch.where(same), *torch.where(~same))
    if name == "triplet":
        mine = miners.TripletMarginMiner(loss.margin, "semihard", distance=distances.LpDistance(power=2))
        indices = mine(x, labels, y, ref_labels)
    elif name == "multi_similarity":
        indices = miners.MultiSimilarityMiner(loss.epsilon)(x, labels, y, ref_labels)
    alone = loss(x, labels, ref_emb=y, ref_labels=ref_labels)
    torch.testing.assert_close(alone, loss(x, labels, indices, y, ref_labels), rtol=1e-10, atol=1e-12)
    check(loss, name, setting, indices, with_references=True)


@each_taking
def test_all_pairs_of_the_batch_listed_are_the_loss_of_the_batch(kind, name):
    loss = build(kind, name)
    x, labels = batch()
    same = labels.unsqueeze(1) == labels
    indices = (*torch.where(same & ~torch.eye(len(x), dtype=torch.bool)), *torch.where(~same))
    if name == "triplet":
        indices = miners.TripletMarginMiner(0.2, "semihard", distance=distances.LpDistance(power=2))(
            x, labels
        )
    elif name == "multi_similarity":
        indices = miners.MultiSimilarityMiner(0.1)(x, labels)
    want = value_and_gradient(loss, x, labels)
    value = loss(x, None, indices)
    torch.testing.assert_close((value.detach(), torch.autograd.grad(value, x)[0]), want)
    itself = loss(x, labels, None, x, labels)
    assert torch.equal(itself.detach(), want[0])


THEIRS = {
    "circle": lambda: losses.CircleLoss(),
    "contrastive": lambda: losses.ContrastiveLoss(),
    "multi_similarity": lambda: losses.MultiSimilarityLoss(),
    "supcon": lambda: losses.SupConLoss(),
    "tcm": lambda: losses.ContrastiveLoss(0.9, 0.5, distance=distances.CosineSimilarity()),
    "triplet": lambda: losses.TripletMarginLoss(0.2, distance=distances.LpDistance(power=2)),
}


@pytest.mark.parametrize("indices", [PAIRS, TRIPLETS, None], ids=["pairs", "triplets", "all"])
@pytest.mark.parametrize("name", THEIRS)
def test_equals_pytorch_metric_learning_on_the_same_pairs_and_references(name, indices):
    if indices is None and name in ("multi_similarity", "triplet"):
        indices = PAIRS  # without pairs these two mine, where theirs take all
    kind = {own: kind for kind, own in TAKING}[name]
    (x, labels), (y, ref_labels) = batch(), references()
    want = THEIRS[name]().double()(x, labels, indices, y, ref_labels)
    found = build(kind, name)(x, labels, indices, y, ref_labels)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(value, [x, y]) for value in (found, want)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_tcm_is_a_contrastive_loss_of_cosines():
    """The statement of the documentation, on a batch of their own convention."""
    x, labels = batch()
    theirs = losses.ContrastiveLoss(pos_margin=0.9, neg_margin=0.5, distance=distances.CosineSimilarity())
    want = value_and_gradient(theirs.double(), x, labels)
    torch.testing.assert_close(value_and_gradient(build("regularizer", "tcm"), x, labels), want)


def test_under_multiple_losses_with_a_miner():
    x, labels = batch()
    parts = [build("regularizer", "tcm"), build("loss", "contrastive"), build("loss", "smooth_ap")]
    both = losses.MultipleLosses(
        parts, miners=[miners.MultiSimilarityMiner(0.1), None, None], weights=[1, 0.5, 2]
    )
    mined = miners.MultiSimilarityMiner(0.1)(x, labels)
    want = parts[0](x, labels, mined) + 0.5 * parts[1](x, labels) + 2 * parts[2](x, labels)
    torch.testing.assert_close(both(x, labels), want)


@pytest.mark.parametrize("mined", [False, True])
@each_taking
def test_under_cross_batch_memory(kind, name, mined):
    """Three batches through a memory that wraps around; theirs, where it has the loss, remembers the same."""
    miner = miners.MultiSimilarityMiner(0.1) if mined else None
    ours = losses.CrossBatchMemory(to_pml(build(kind, name)), WIDTH, memory_size=15, miner=miner)
    theirs = THEIRS.get(name, THEIRS["tcm"])
    other = losses.CrossBatchMemory(theirs(), WIDTH, memory_size=15, miner=miner)
    for step in range(3):
        x = torch.randn(len(LABELS), WIDTH, generator=torch.Generator().manual_seed(step)).requires_grad_()
        labels = torch.tensor(LABELS).roll(step)
        value, want = ours(x, labels), other(x, labels)
        (gradient,) = torch.autograd.grad(value, x)
        assert value.isfinite()
        assert gradient.isfinite().all()
        if name in THEIRS:
            torch.testing.assert_close(value, want.to(value.dtype), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(gradient, torch.autograd.grad(want, x)[0], rtol=1e-3, atol=1e-5)
    assert torch.equal(ours.embedding_memory, other.embedding_memory)


def test_their_tcm_ignores_references():
    """The reason to use ours with a memory: theirs takes indices of references for rows of the batch."""
    (x, labels), (y, ref_labels) = batch(), references()
    small = tuple(part.clamp(max=9) for part in PAIRS)
    theirs = losses.ThresholdConsistentMarginLoss()
    assert torch.equal(theirs(x, labels, small, y, ref_labels), theirs(x, labels, small))
    with pytest.raises(Exception, match="CrossBatchMemory not supported"):
        losses.CrossBatchMemory(theirs, WIDTH)


def test_one_process_under_the_distributed_wrapper():
    from pytorch_metric_learning.utils.distributed import DistributedLossWrapper

    x, labels = batch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = DistributedLossWrapper(to_pml(build("regularizer", "tcm")))(x, labels)
    assert torch.equal(value, build("regularizer", "tcm")(x, labels))


def test_names_for_the_memory_are_those_of_losses_that_take_references():
    taking = {type(build(kind, name)).__name__ for kind, name in TAKING}
    assert set(STANDS_FOR) == taking
    assert set(STANDS_FOR.values()) <= set(losses.CrossBatchMemory.supported_losses())


def test_reducers_see_one_number():
    x, labels = batch()
    loss = to_pml(build("regularizer", "tcm"))
    loss.set_reducer(reducers.SumReducer())
    torch.testing.assert_close(loss(x, labels), build("regularizer", "tcm")(x, labels))


@pytest.mark.parametrize(("kind", "name"), [part for part in COMPONENTS if part[1] not in CHOSEN])
def test_a_loss_that_cannot_says_so(kind, name):
    loss, (x, labels) = build(kind, name), batch()
    for arguments in ((PAIRS,), (None, *references())):
        with pytest.raises(
            ValueError, match=r"takes neither indices_tuple nor ref_emb: it is no sum over pairs"
        ):
            loss(x, labels, *arguments)


@each_taking
def test_nothing_chosen_is_zero_and_nan_is_not_hidden(kind, name):
    loss, (x, labels) = build(kind, name), batch()
    none = (torch.tensor([], dtype=torch.long),) * 4
    value, gradient = value_and_gradient(lambda e, _: loss(e, labels, none), x, labels)
    assert value == 0
    assert not gradient.any()
    bad = x.detach().clone()
    bad[7, 1] = torch.nan
    assert loss(bad, labels, none).isnan()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_references(dtype):
    loss = build("regularizer", "tcm", torch.float32)
    (x, labels), (y, ref_labels) = batch(dtype), references(dtype)
    want = loss(x.float(), labels, PAIRS, y.float(), ref_labels)
    assert torch.equal(loss(x, labels, PAIRS, y, ref_labels), want)


LONG = torch.arange(3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"indices_tuple": (LONG, LONG)}, r"must have 3 tensors \(triplets\) or 4 \(pairs\), got 2"),
        (
            {"indices_tuple": (LONG, LONG[:2], LONG)},
            r"positives must be an integer .*\[3\], got .*int64 \[2\]",
        ),
        (
            {"indices_tuple": (LONG, LONG.float(), LONG)},
            r"positives must be an integer .*, got torch.float32",
        ),
        ({"indices_tuple": (LONG, LONG, LONG, LONG + 8)}, r"in 0\.\.9, for 10 references, got 8\.\.10"),
        ({"indices_tuple": (LONG - 1, LONG, LONG)}, r"anchors must be in 0\.\.9, for 10 embeddings, got -1"),
        ({"ref_emb": torch.ones(3, 4), "ref_labels": LONG}, "ref_emb must have the width .*5., got 4"),
        ({"ref_emb": torch.ones(3, WIDTH)}, "ref_emb and ref_labels: labels must be given"),
        (
            {"ref_emb": torch.ones(3, WIDTH), "ref_labels": LONG[:2]},
            "ref_emb and ref_labels: labels must be an",
        ),
        ({"labels": None}, "labels must be given where no indices_tuple is"),
    ],
)
def test_a_bad_choice_is_refused(arguments, message):
    x, labels = batch()
    loss = BUILDERS["regularizer"]("tcm", num_classes=6, embedding_dim=WIDTH)
    with pytest.raises(ValueError, match=message):
        loss(**{"embeddings": x, "labels": labels} | arguments)
