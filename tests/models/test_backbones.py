"""Backbones by name: shapes, arguments, local weights, refusals."""

from __future__ import annotations

import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file

from dmlcore.models import build_backbone

SMALL = {"channels": [8, 16, 16, 16], "stem_type": "", "stem_width": 8}


@pytest.mark.parametrize(
    ("name", "arguments", "channels", "side"),
    [
        ("resnet10t", SMALL, 1, 32),
        ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 1}, 3, 32),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 32, "window_size": 2, "depths": [1, 1, 1, 1]},
            3,
            32,
        ),
        ("resnet18.tv_in1k", {}, 3, 64),
        ("mobilenetv3_small_050", {}, 3, 64),
    ],
)
def test_features_have_the_width_that_is_announced(name, arguments, channels, side):
    backbone = build_backbone(name, arguments=arguments, in_channels=channels).eval()
    with torch.no_grad():
        features = backbone(torch.randn(2, channels, side, side))
    width = features.shape[1] if features.dim() == 4 else features.shape[2]
    assert features.shape[0] == 2
    assert width == backbone.num_features


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("resnet19", {}, "must be a timm model"),
        ("resnet10t", {"chanels": [1]}, "must be arguments of the timm model"),
    ],
)
def test_unknown_names_and_arguments_are_refused(name, arguments, words):
    with pytest.raises(ValueError, match=words):
        build_backbone(name, arguments=arguments)


def test_timm_has_torchvisions_resnet50():
    """The same file of weights, so that a recipe with IMAGENET1K_V1 can be followed."""
    from torchvision.models import ResNet50_Weights

    assert timm.get_pretrained_cfg("resnet50.tv_in1k").url == ResNet50_Weights.IMAGENET1K_V1.url


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_local_weights_are_loaded(tmp_path, suffix):
    source = build_backbone("resnet10t", arguments=SMALL, in_channels=1)
    state = source.model.state_dict()
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded = build_backbone("resnet10t", arguments=SMALL, in_channels=1, weights=str(path))
    assert all(torch.equal(loaded.model.state_dict()[key], value) for key, value in state.items())


def test_weights_that_do_not_fit_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="lacks"):
        build_backbone("resnet10t", arguments=SMALL, weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(ValueError, match="is no file"):
        build_backbone("resnet10t", arguments=SMALL, weights=str(tmp_path / "none.pth"))


class Exploit:
    def __reduce__(self):
        return (print, ("unpickled",))


def test_a_pickle_is_not_executed(tmp_path, capsys):
    torch.save({"a": Exploit()}, tmp_path / "w.pth")
    with pytest.raises(pickle.UnpicklingError):
        build_backbone("resnet10t", arguments=SMALL, weights=str(tmp_path / "w.pth"))
    assert "unpickled" not in capsys.readouterr().out
