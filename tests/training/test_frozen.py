"""A frozen trunk: every image is embedded once, all trials share the features, the head alone is trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dmlcore.core.hashing import json_sha256
from dmlcore.metrics.evaluation import evaluate
from dmlcore.training import run_trial
from dmlcore.training.build import build_model
from dmlcore.training.features import feature_inputs, trunk_features
from dmlcore.training.loader import ImageLoader
from dmlcore.training.store import TrialStore, cached_array
from tests.small import small_trial

CPU = torch.device("cpu")


def features_key(config, data_hash):
    return json_sha256(feature_inputs(config, data_hash))


def frozen(**changes):
    model = {"trunk": "frozen"} | changes.pop("model", {})
    return small_trial(model=model, **changes)


def test_the_features_are_those_of_the_network(small_data, tmp_path):
    config = frozen()
    features = trunk_features(config, small_data, cache=tmp_path, device=CPU)
    assert features.shape[0] == small_data.manifest.height
    model = build_model(config.model, in_channels=1, seed=config.seed).eval()
    split = small_data.split("test")
    image = torch.from_numpy(split.images.read(5).copy()).permute(2, 0, 1).float()
    with torch.inference_mode():
        expected = model.pooled(((image / 255 - 0.5) / 0.5).unsqueeze(0))[0]
    torch.testing.assert_close(torch.from_numpy(features[split.index[5]].copy()), expected)


@pytest.mark.parametrize("damage", ["bit", "no checksum"])
def test_shared_features_that_were_changed_are_computed_again(tmp_path, damage):
    values = np.arange(12.0).reshape(3, 4)
    cached_array(tmp_path, ["inputs"], lambda: values)
    (file,) = tmp_path.glob("*.npy")
    (checksum,) = tmp_path.glob("*.sha256")
    if damage == "bit":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    else:
        checksum.unlink()
    computed = []
    found = cached_array(tmp_path, ["inputs"], lambda: computed.append(1) or values)
    assert found.tolist() == values.tolist()
    assert computed == [1]
    assert cached_array(tmp_path, ["inputs"], lambda: computed.append(2)).tolist() == values.tolist()
    assert computed == [1]


def test_trials_share_one_file_and_learn(small_data, tmp_path):
    for number, loss in enumerate(["multi_similarity", "proxy_anchor"]):
        config = frozen(loss={"name": loss}, train={"epochs": 6, "batches_per_epoch": 10})
        result = run_trial(config, small_data, store=TrialStore(tmp_path / f"trial{number}"))
        losses = [report.metrics["train/loss"] for report in result.curve[1:]]
        assert losses[-1] < losses[0]
        best = TrialStore(tmp_path / f"trial{number}", result.files).load("best")
        assert not [key for key in best if key.startswith("backbone")]
    assert len(list((tmp_path / "features").glob("*.npy"))) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"channels_last": True}},
        {"model": {"pooling": "token"}},
        {"seed": 1},
        {"input": {"size": 12}},
        {"threads": 2},
        {"train": {"precision": "bfloat16"}},
    ],
)
def test_what_changes_the_features_changes_their_name(small_data, change):
    assert features_key(frozen(**change), small_data.data_hash) != features_key(
        frozen(), small_data.data_hash
    )


def test_what_does_not_keeps_it(small_data):
    other = frozen(loss={"name": "contrastive"}, train={"epochs": 9}, model={"embedding_dim": 7})
    assert features_key(other, small_data.data_hash) == features_key(frozen(), small_data.data_hash)
    assert features_key(frozen(), "other data") != features_key(frozen(), small_data.data_hash)


@pytest.mark.parametrize(
    "file",
    [
        "data/jpeg.py",
        "data/transforms.py",
        "training/loader.py",
        "training/input_pipeline.py",
        "models/__init__.py",
    ],
)
def test_the_code_that_computes_the_features_is_in_their_name(source_copy, file):
    key = features_key(frozen(), "data")
    source_copy.edit(f"dmlcore/{file}", '"""', '"""Another docstring. ')
    assert features_key(frozen(), "data") == key
    source_copy.append(f"dmlcore/{file}")
    assert features_key(frozen(), "data") != key


@pytest.mark.parametrize(
    "file",
    [
        "losses/smooth_ap.py",
        "losses/__init__.py",
        "metrics/retrieval.py",
        "training/samplers.py",
        "training/language.py",
        "records.py",
        "sweep/trial_key.py",
    ],
)
def test_code_that_features_do_not_run_through_is_not(source_copy, file):
    key = features_key(frozen(), "data")
    source_copy.append(f"dmlcore/{file}")
    assert features_key(frozen(), "data") == key


def test_a_weights_file_counts_by_its_content_and_the_seed_then_no_more(small_data, tmp_path):
    path = tmp_path / "weights.safetensors"
    from safetensors.torch import save_file

    config = frozen()
    state = build_model(config.model, in_channels=1, seed=0).backbone.model.state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    named = {"model": {"backbone": {"weights": str(path)}}}
    key = features_key(frozen(**named), small_data.data_hash)
    assert features_key(frozen(seed=3, **named), small_data.data_hash) == key
    state[next(iter(state))].add_(1.0)
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    assert features_key(frozen(**named), small_data.data_hash) != key


@pytest.mark.parametrize("trunk", [None, "frozen"])
def test_the_features_of_pretrained_weights_are_a_baseline(small_data, tmp_path, trunk):
    from safetensors.torch import save_file

    config = small_trial()
    trained = build_model(config.model, in_channels=1, seed=5)
    state = trained.backbone.model.state_dict()
    path = tmp_path / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    config = small_trial(model={"trunk": trunk, "backbone": {"weights": str(path)}}, train={"epochs": 1})
    metrics = run_trial(config, small_data, store=TrialStore(tmp_path / "store" / "trial")).metrics
    split = small_data.split("test")
    model = build_model(config.model, in_channels=1, seed=0).eval()
    with torch.no_grad():
        batches = ImageLoader(split, config, CPU).evaluation_batches()
        features = torch.cat([model.pooled(images) for images in batches])
    expected = evaluate(features, split.labels).metrics
    assert metrics["features/map_at_r"] == pytest.approx(expected["map_at_r"], abs=1e-6)
    assert metrics["features/recall_at_1"] == pytest.approx(expected["recall_at_1"], abs=1e-6)


def test_without_pretrained_weights_there_is_no_such_baseline(small_data, tmp_path):
    config = small_trial(train={"epochs": 1})
    metrics = run_trial(config, small_data, store=TrialStore(tmp_path / "trial")).metrics
    assert not [name for name in metrics if name.startswith("features/")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": {"pooling": "gem"}}, "gem"),
        ({"train": {"augmentation": {"horizontal_flip": True}}}, "augmentation"),
        ({"input": {"size": 12, "random_crop": {}}}, "random_crop"),
    ],
)
def test_settings_that_change_an_image_are_refused(small_data, tmp_path, change, said):
    with pytest.raises(ValueError, match=said):
        run_trial(frozen(**change), small_data, store=TrialStore(tmp_path / "trial"))
