"""What training at paper scale needs, on a small network: chunks, bf16, compile, crops, the final training."""

from __future__ import annotations

import math

import pytest
import torch

from dmlcore.config.base import parse
from dmlcore.config.sweep import merge
from dmlcore.config.trial import TrialConfig
from dmlcore.training import run_trial
from dmlcore.training.store import TrialStore
from dmlcore.training.trainer import Trainer, batch_size
from tests.small import TRIAL, small_trial


def vit_trial(side=16, **changes):
    arguments = {"img_size": side, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
    model = {
        "backbone": {"name": "vit_tiny_patch16_224", "arguments": arguments},
        "pooling": "token",
        "embedding_dim": 16,
    }
    values = merge(TRIAL, changes) | {"model": merge(model, changes.get("model", {}))}
    return parse(TrialConfig, values, "small trial of a transformer")


def result_of(data, folder, config=None, **changes):
    return run_trial(config or small_trial(**changes), data, store=TrialStore(folder / "trial"))


def test_chunks_train_as_the_whole_batch_does(small_data, tmp_path):
    whole = result_of(small_data, tmp_path / "a", vit_trial(train={"epochs": 1}))
    chunked = result_of(small_data, tmp_path / "b", vit_trial(train={"epochs": 1, "chunk_size": 5}))
    loss = "train/loss"
    assert chunked.metrics[loss] == pytest.approx(whole.metrics[loss], rel=1e-3)
    other = result_of(small_data, tmp_path / "c", vit_trial(train={"epochs": 1, "batch_size": 12}))
    assert other.metrics[loss] != pytest.approx(whole.metrics[loss], rel=1e-3)


def test_augmentation_is_the_same_in_chunks(small_data, tmp_path):
    augmentation = {"rotation_degrees": 20.0, "translate": 0.2, "horizontal_flip": True}
    train = {"epochs": 1, "batches_per_epoch": 1, "augmentation": augmentation}
    losses = [
        result_of(
            small_data,
            tmp_path / str(chunk),
            vit_trial(train=train | {"chunk_size": chunk}),
        ).metrics["train/loss"]
        for chunk in (None, 6)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_network_that_mixes_the_batch_cannot_go_in_chunks(small_data, tmp_path):
    with pytest.raises(ValueError, match="freeze_batch_norm"):
        result_of(small_data, tmp_path, train={"chunk_size": 8})
    frozen = {"backbone": {"freeze_batch_norm": True}, "normalization": "layer_norm"}
    result_of(small_data, tmp_path, model=frozen, train={"epochs": 1, "chunk_size": 8})


def test_bfloat16_trains_near_float32(small_data, tmp_path):
    # A transformer: oneDNN's bfloat16 weight gradient of a strided convolution reads uninitialised memory where the
    # feature map is 1 x 1, as it is in the small test network.
    full = result_of(small_data, tmp_path / "a", vit_trial(train={"epochs": 3}))
    half = result_of(small_data, tmp_path / "b", vit_trial(train={"epochs": 3, "precision": "bfloat16"}))
    assert half.metrics["train/loss"] != full.metrics["train/loss"]
    assert half.metrics["train/loss"] == pytest.approx(full.metrics["train/loss"], rel=0.05)


@pytest.mark.slow
def test_a_compiled_network_trains_as_the_plain_one(small_data, tmp_path):
    plain = result_of(small_data, tmp_path / "a", vit_trial(train={"epochs": 1}))
    compiled = result_of(small_data, tmp_path / "b", vit_trial(model={"compile": True}, train={"epochs": 1}))
    assert compiled.metrics["train/loss"] == pytest.approx(plain.metrics["train/loss"], rel=1e-3)


def test_random_crops_at_another_size(small_data, tmp_path):
    config = {"size": 12, "random_crop": {"scale": [0.5, 1.0]}, "mean": [0.4], "std": [0.3]}
    flipped = {"augmentation": {"horizontal_flip": True}}
    result = result_of(small_data, tmp_path, vit_trial(side=12, input=config, train=flipped))
    assert math.isfinite(result.metrics["train/loss"])


def test_the_batch_is_cut_to_the_classes_only_where_that_is_asked_for(small_data, tmp_path):
    limited = small_trial(train={"batch_size": 400, "batch_limit": "classes"})
    classes = len(small_data.split("train").class_names)
    assert batch_size(limited, classes) == 4 * classes
    assert batch_size(small_trial(train={"batch_size": 8, "batch_limit": "classes"}), classes) == 8
    result = run_trial(limited, small_data, store=TrialStore(tmp_path / "trial"))
    assert result.metrics["train/batch_size"] == 4 * classes


def test_the_final_training_takes_validation_classes_too_for_the_epochs_that_validation_chose(
    small_data, tmp_path
):
    store = TrialStore(tmp_path / "a" / "trial")
    result = run_trial(small_trial(train={"epochs": 3, "final": True}), small_data, store=store)
    selected = result_of(small_data, tmp_path / "b", train={"epochs": 3})
    chosen = int(result.metrics["validation/best_epoch"])
    assert chosen == selected.metrics["validation/best_epoch"]
    assert result.metrics["validation/map_at_r"] == selected.metrics["validation/map_at_r"]
    assert result.metrics["test/map_at_r"] != selected.metrics["test/map_at_r"]
    final = [report for report in result.curve if "final/train/loss" in report.metrics]
    assert [report.epoch for report in final] == [3 + epoch for epoch in range(1, chosen + 1)]
    both = Trainer(small_trial(), small_data, "train+validation", torch.device("cpu"), tmp_path)
    names = [*small_data.split("train").class_names, *small_data.split("validation").class_names]
    assert sorted(both.split.class_names) == sorted(names)
    assert set(result.files) == {"best", "final", "validation", "test"}
    assert store.matches(result.files)
