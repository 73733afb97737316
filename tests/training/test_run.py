"""One trial: learns, keeps the epoch that validation chose, repeats bit for bit, says why it cannot go on."""

from __future__ import annotations

import math

import pytest
import torch

from dmlcore.metrics.evaluation import evaluate
from dmlcore.training import run_trial
from dmlcore.training.build import build_model, build_objective, build_optimizer, schedule_factor
from dmlcore.training.evaluation import evaluate_stored, utility_curve
from dmlcore.training.store import DamagedFileError, TrialStore
from dmlcore.training.trainer import Trainer, TrainingError
from tests.small import small_trial


@pytest.fixture(scope="module")
def finished(small_data, tmp_path_factory):
    store = TrialStore(tmp_path_factory.mktemp("store") / "trial")
    seen = []
    config = small_trial(train={"epochs": 4, "batches_per_epoch": 8})
    return config, run_trial(config, small_data, store=store, report=seen.append), store, seen


def test_training_beats_the_untrained_network(finished):
    _, result, _, _ = finished
    assert result.metrics["test/map_at_r"] > result.metrics["untrained/map_at_r"] + 0.1


def test_every_epoch_is_reported_once_from_the_untrained_network_on(finished):
    config, result, _, seen = finished
    assert [report.epoch for report in seen] == list(range(config.train.epochs + 1))
    assert result.curve == seen
    assert "train/loss" in seen[1].metrics


def test_the_checkpoint_is_the_best_validation_epoch(finished):
    _, result, _, seen = finished
    scores = [report.metrics["validation/map_at_r"] for report in seen[1:]]
    assert result.metrics["validation/best_epoch"] == 1 + scores.index(max(scores))
    assert result.metrics["validation/map_at_r"] == pytest.approx(max(scores))


def test_metrics_are_those_of_the_stored_embeddings(finished, small_data):
    config, result, store, _ = finished
    stored = store.load("test")
    split = small_data.split("test")
    assert stored["index"].tolist() == split.index.tolist()
    assert stored["labels"].tolist() == split.labels.tolist()
    again = evaluate(stored["embeddings"], stored["labels"])
    assert again.metrics["opis"] == pytest.approx(result.metrics["test/opis"])
    assert (
        evaluate_stored(store.load, config.evaluation)[0]["test/map_at_r"] == result.metrics["test/map_at_r"]
    )


@pytest.mark.parametrize("damage", [lambda c: c[:-9] + bytes([c[-9] ^ 1]) + c[-8:], lambda c: c[:50]])
def test_a_stored_file_that_was_changed_is_not_read(finished, tmp_path, damage):
    _, result, store, _ = finished
    copy = TrialStore(tmp_path, result.files)
    copy.path("test").write_bytes(damage(store.path("test").read_bytes()))
    with pytest.raises(DamagedFileError, match=r"test\.safetensors is missing, or was changed"):
        copy.load("test")
    with pytest.raises(DamagedFileError, match=r"best\.safetensors is missing"):
        copy.load("best")


def test_the_range_carried_over_from_validation_is_used(finished):
    _, result, store, _ = finished
    span = (result.metrics["validation/distance_min"], result.metrics["validation/distance_max"])
    stored = store.load("test")
    carried = evaluate(stored["embeddings"], stored["labels"], distance_range=span)
    assert result.metrics["test/opis_validation_range"] == pytest.approx(carried.metrics["opis"])


def test_stored_files_match_their_digests_until_they_are_touched(finished):
    _, result, store, _ = finished
    assert set(result.files) == {"best", "validation", "test"}
    assert store.matches(result.files)
    content = store.path("test").read_bytes()
    store.path("test").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not store.matches(result.files)
    store.path("test").write_bytes(content)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(small_data, tmp_path):
    def metrics(name, **changes):
        return run_trial(small_trial(**changes), small_data, store=TrialStore(tmp_path / name)).metrics

    first = metrics("a")
    torch.rand(7)  # the global generator's state must not matter
    assert metrics("b") == first
    assert metrics("c", seed=1) != first


def test_both_variants_share_initial_weights_and_batches(small_data, tmp_path):
    variants = [small_trial(), small_trial(regularizers=[{"name": "tcm"}])]
    curves = [
        run_trial(variant, small_data, store=TrialStore(tmp_path / str(i))).curve
        for i, variant in enumerate(variants)
    ]
    assert curves[0][0] == curves[1][0]
    assert curves[0][1].metrics["train/loss"] != curves[1][1].metrics["train/loss"]
    assert "train/loss_tcm" in curves[1][1].metrics


def test_a_loss_that_is_not_finite_ends_the_trial_with_its_place(small_data, tmp_path):
    config = small_trial(train={"optimizer": {"name": "sgd", "learning_rate": 1.0e30}})
    with pytest.raises(TrainingError, match="finite"):
        run_trial(config, small_data, store=TrialStore(tmp_path))


def test_a_batch_that_the_data_cannot_fill_is_refused(small_data, tmp_path):
    with pytest.raises(ValueError, match="class"):
        run_trial(small_trial(train={"batch_size": 64}), small_data, store=TrialStore(tmp_path))


@pytest.mark.parametrize(
    "loss", ["none", "proxy_anchor", "recall_at_k", "smooth_ap", "contrastive", "pml:CircleLoss"]
)
def test_every_kind_of_loss_trains(small_data, tmp_path, loss):
    changes = {"regularizers": [{"name": "tcm"}]} if loss == "none" else {}
    config = small_trial(loss={"name": loss}, train={"epochs": 1, "batches": "class_balanced"}, **changes)
    result = run_trial(config, small_data, store=TrialStore(tmp_path))
    assert math.isfinite(result.metrics["train/loss"])


def test_language_guidance_gets_a_text_embedding_a_class(small_data, tmp_path, monkeypatch):
    asked = []

    def encode(names, **options):
        asked.append((tuple(names), options))
        return torch.eye(len(names))

    monkeypatch.setattr("dmlcore.training.language.class_text_embeddings", encode)
    part = {"name": "language_guidance", "params": {"omega": 1.0, "text_model": "some/model"}}
    config = small_trial(regularizers=[part], train={"epochs": 1})
    result = run_trial(config, small_data, store=TrialStore(tmp_path / "trial"))
    assert math.isfinite(result.metrics["train/loss"])
    names, options = asked[0]
    assert names == small_data.split("train").class_names
    assert options["model"] == "some/model"


def test_random_batches_train_too(small_data, tmp_path):
    config = small_trial(loss={"name": "norm_softmax"}, train={"batches": "random", "epochs": 1})
    assert math.isfinite(run_trial(config, small_data, store=TrialStore(tmp_path)).metrics["train/loss"])


def test_no_loss_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one regulariser"):
        build_objective(small_trial(loss={"name": "none"}), num_classes=4)


def test_the_loss_has_a_learning_rate_of_its_own_and_is_not_decayed():
    config = small_trial(
        loss={"name": "proxy_anchor"},
        train={"optimizer": {"learning_rate": 0.1, "head_learning_rate": 0.2, "loss_learning_rate": 0.3}},
    )
    model = build_model(config.model, in_channels=1, seed=0)
    objective = build_objective(config, num_classes=4)
    groups = build_optimizer(config.train.optimizer, model, objective).param_groups
    assert sorted({group["lr"] for group in groups}) == [0.1, 0.2, 0.3]
    assert {group["weight_decay"] for group in groups if group["lr"] == 0.3} == {0.0}
    everything = [*model.parameters(), *objective.parameters()]
    assert sum(len(group["params"]) for group in groups) == len(everything)


@pytest.mark.parametrize(
    ("loss", "regularizers"), [("proxy_anchor", []), ("multi_similarity", [{"name": "unified_threshold"}])]
)
def test_the_clip_holds_for_the_whole_gradient(small_data, tmp_path, loss, regularizers):
    """Proxies at a learning rate of 100 reached a norm of 1460 while the network's gradient was clipped to 1."""
    clip, rate = 0.01, 100.0
    optimizer = {"name": "sgd", "gradient_clip": clip, "loss_learning_rate": rate}
    train = {"batches_per_epoch": 1, "schedule": {"name": "constant"}, "optimizer": optimizer}
    config = small_trial(loss={"name": loss}, regularizers=regularizers, train=train)
    trainer = Trainer(config, small_data, "train", torch.device("cpu"), tmp_path)
    own = list(trainer.objective.parameters())
    before = [parameter.detach().clone() for parameter in own]
    trainer.train_epoch(1)
    gradients = [p.grad for p in (*trainer.model.parameters(), *own) if p.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    assert float(norm) == pytest.approx(clip, rel=1e-3)
    moved = torch.stack([(new.detach() - old).norm() for new, old in zip(own, before, strict=True)]).norm()
    assert 0 < float(moved) <= 1.01 * rate * clip


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"name": "constant"}, [1.0, 1.0, 1.0, 1.0]),
        ({"name": "cosine"}, [1.0, 0.5 * (1 + math.cos(math.pi / 4)), 0.5, 0.0]),
        ({"name": "cosine", "until": 0.5, "floor": 0.1}, [1.0, 0.1 + 0.9 * 0.5, 0.1, 0.1]),
        ({"name": "milestones", "milestones": [2, 3], "factor": 0.5}, [1.0, 1.0, 0.5, 0.25]),
        ({"name": "constant", "warmup_epochs": 2.0}, [0.0005, 0.5, 1.0, 1.0]),
    ],
)
def test_schedules(schedule, expected):
    config = small_trial(train={"schedule": schedule}).train.schedule
    found = [schedule_factor(config, epochs=4, progress=progress) for progress in (0.0, 1.0, 2.0, 4.0)]
    assert found == pytest.approx(expected)


def test_utility_curve_is_a_summary_over_the_classes(finished):
    stored = finished[2].load("test")
    evaluation = evaluate(stored["embeddings"], stored["labels"])
    curve = utility_curve(evaluation)
    utility = torch.as_tensor(evaluation.utility, dtype=torch.float64)
    assert curve["mean"] == pytest.approx(utility.mean(dim=0).tolist())
    assert all(low <= high for low, high in zip(curve["low"], curve["high"], strict=True))


def test_an_untrained_network_that_sees_no_difference_is_trained_all_the_same(
    small_data, tmp_path, monkeypatch
):
    real, calls = evaluate, []

    def first_two_collapse(*args, **settings):
        calls.append(1)
        if len(calls) <= 2:
            args = (torch.ones_like(args[0]), *args[1:])
        return real(*args, **settings)

    monkeypatch.setattr("dmlcore.training.run.evaluate", first_two_collapse)
    config = small_trial(train={"epochs": 1, "batches_per_epoch": 2})
    result = run_trial(config, small_data, store=TrialStore(tmp_path / "trial"))
    assert result.curve[0].metrics == {}
    assert "validation/map_at_r" in result.curve[1].metrics
    assert not [name for name in result.metrics if name.startswith("untrained/")]


def test_a_network_that_collapses_while_it_trains_ends_the_trial(small_data, tmp_path, monkeypatch):
    real, calls = evaluate, []

    def later_collapse(*args, **settings):
        calls.append(1)
        return real(args[0] if len(calls) <= 2 else torch.ones_like(args[0]), *args[1:], **settings)

    monkeypatch.setattr("dmlcore.training.run.evaluate", later_collapse)
    with pytest.raises(ValueError, match="embeddings have collapsed"):
        run_trial(
            small_trial(train={"epochs": 1, "batches_per_epoch": 2}),
            small_data,
            store=TrialStore(tmp_path / "trial"),
        )
