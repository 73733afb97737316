"""Backbones by name: shapes, arguments, local weights, refusals."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

from dmlcore.models import build_backbone

SMALL = {"channels": [8, 16, 16, 16], "stem_type": "", "stem_width": 8}


@pytest.mark.parametrize(
    ("library", "name", "arguments", "channels", "side"),
    [
        ("timm", "resnet10t", SMALL, 1, 32),
        ("timm", "vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 1}, 3, 32),
        (
            "timm",
            "swin_tiny_patch4_window7_224",
            {"img_size": 32, "window_size": 2, "depths": [1, 1, 1, 1]},
            3,
            32,
        ),
        ("torchvision", "resnet18", {}, 3, 64),
        ("torchvision", "vit_b_32", {"image_size": 64}, 3, 64),
        ("torchvision", "mobilenet_v3_small", {}, 3, 64),
    ],
)
def test_features_have_the_width_that_is_announced(library, name, arguments, channels, side):
    backbone = build_backbone(library, name, arguments=arguments, in_channels=channels).eval()
    with torch.no_grad():
        features = backbone(torch.randn(2, channels, side, side))
    width = features.shape[1] if features.dim() == 4 else features.shape[2]
    assert features.shape[0] == 2
    assert width == backbone.num_features


@pytest.mark.parametrize(
    ("library", "name", "arguments", "words"),
    [
        ("tinm", "resnet18", {}, "must be one of"),
        ("timm", "resnet19", {}, "must be a timm model"),
        ("torchvision", "resnet19", {}, "must be a torchvision"),
        ("timm", "resnet10t", {"chanels": [1]}, "must be ones that it takes"),
    ],
)
def test_unknown_names_and_arguments_are_refused(library, name, arguments, words):
    with pytest.raises(ValueError, match=words):
        build_backbone(library, name, arguments=arguments)


def test_torchvision_needs_three_channels():
    with pytest.raises(ValueError, match="3 input channels"):
        build_backbone("torchvision", "resnet18", in_channels=1)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_local_weights_are_loaded(tmp_path, suffix):
    source = build_backbone("timm", "resnet10t", arguments=SMALL, in_channels=1)
    state = source.body.model.state_dict()
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded = build_backbone("timm", "resnet10t", arguments=SMALL, in_channels=1, weights=str(path))
    assert all(torch.equal(loaded.body.model.state_dict()[key], value) for key, value in state.items())


def test_weights_that_do_not_fit_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="lacks"):
        build_backbone("timm", "resnet10t", arguments=SMALL, weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(ValueError, match="is no file"):
        build_backbone("timm", "resnet10t", arguments=SMALL, weights=str(tmp_path / "none.pth"))


class Exploit:
    def __reduce__(self):
        return (print, ("unpickled",))


def test_a_pickle_is_not_executed(tmp_path, capsys):
    torch.save({"a": Exploit()}, tmp_path / "w.pth")
    with pytest.raises(pickle.UnpicklingError):
        build_backbone("timm", "resnet10t", arguments=SMALL, weights=str(tmp_path / "w.pth"))
    assert "unpickled" not in capsys.readouterr().out
