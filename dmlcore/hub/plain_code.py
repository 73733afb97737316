"""Python that embeds image files with an exported folder and imports no dmlcore: torch, timm, safetensors, Pillow."""

from __future__ import annotations

from dmlcore.hub.folder import Settings

POOLING = {
    "average": "features.mean(dim=2)",
    "gem": 'features.clamp(min=1e-6).pow(state["pooling.exponent"]).mean(dim=2).pow(1 / state["pooling.exponent"])',
    "token": "features[:, :, 0]",
}
NORMALIZATION = {
    "none": "pooled",
    "layer_norm": (
        "functional.layer_norm(pooled, pooled.shape[1:], "
        'state["normalization.weight"], state["normalization.bias"])'
    ),
    "batch_norm": (
        'functional.batch_norm(pooled, state["normalization.running_mean"], state["normalization.running_var"],\n'
        '                                           state["normalization.weight"], state["normalization.bias"])'
    ),
}
FLAT = {
    "NCHW": "features.flatten(2)",
    "NHWC": "features.permute(0, 3, 1, 2).flatten(2)",
    "NLC": "features.transpose(1, 2)",
}
"""Features by their layout -> [N, F, positions]."""
SQUARE = """\
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    box = (left, top, left + side, top + side)
    picture = picture.resize(({size}, {size}), Image.Resampling.BICUBIC, box=box)"""
SHORT_SIDE = """\
    short = min(picture.size)
    width, height = (min(side, {aspect} * short) for side in picture.size)
    left, top = (picture.width - width) / 2, (picture.height - height) / 2
    target = (round(width * {size} / short), round(height * {size} / short))
    picture = picture.resize(target, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))"""
JPEG = """
    buffer = io.BytesIO()  # the loss of JPEG is part of what the network was trained on
    picture.save(buffer, format="JPEG", {options})
    picture = Image.open(buffer)"""
ENLARGED = """
    pixels = functional.interpolate(pixels[None], ({crop}, {crop}), mode="bilinear", antialias=True)[0]"""
CODE = '''\
import io
import json
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch.nn import functional

FOLDER = Path(".")
IMAGES = ["image.jpg"]

config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
state = load_file(FOLDER / "model.safetensors")
backbone = timm.create_model(
    config["backbone"]["name"], num_classes=0, global_pool="", in_chans={channels}, **config["backbone"]["arguments"]
)
backbone.load_state_dict(
    {{name.removeprefix("backbone.model."): value for name, value in state.items() if name.startswith("backbone.")}}
)
backbone.eval()


def prepare(path):
    """Return the network's input, [{channels}, {crop}, {crop}], of an image file of 8 bits a channel."""
    picture = ImageOps.exif_transpose(Image.open(path))
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    picture = picture.convert("RGB")
{resize}
    pixels = torch.from_numpy(np.array(picture)).reshape(picture.height, picture.width, {channels}).permute(2, 0, 1)
    side = min({crop}, picture.width, picture.height)
    top, left = (picture.height - side) // 2, (picture.width - side) // 2
    pixels = pixels[:, top : top + side, left : left + side]{enlarge}
    mean, std = (torch.tensor(config["preprocessing"][name]).reshape(-1, 1, 1) for name in ("mean", "std"))
    return (pixels.float() / 255 - mean) / std


def embed(batch):
    """Return embeddings of L2 norm 1, [N, {width}], of a batch [N, {channels}, {crop}, {crop}]."""
    features = backbone.forward_features(batch)
    features = {flat}
    pooled = {pooling}
    normalized = {normalization}
    projected = functional.linear(normalized, state["projection.weight"], state["projection.bias"])
    return functional.normalize(projected.float())


with torch.inference_mode(){autocast}:
    embeddings = embed(torch.stack([prepare(path) for path in IMAGES])).numpy()
'''


def code_of(settings: Settings) -> str:
    """Return Python that embeds image files as the trial did, and imports no dmlcore."""
    images = settings.preprocessing
    template = SQUARE if images.resize == "centre_square" else SHORT_SIDE
    resize = template.format(size=images.resized_size, aspect=images.largest_aspect)
    if images.channel_order == "L":
        resize += '\n    picture = picture.convert("L")'
    if images.jpeg is not None:
        resize += JPEG.format(options=", ".join(f"{name}={value!r}" for name, value in images.jpeg))
    assert images.crop is not None
    return CODE.format(
        channels=images.channels,
        crop=images.crop,
        width=settings.head.embedding_dim,
        resize=resize,
        enlarge=ENLARGED.format(crop=images.crop) if images.crop > images.resized_size else "",
        flat=FLAT[settings.backbone.layout],
        pooling=POOLING[settings.head.pooling],
        normalization=NORMALIZATION[settings.head.normalization],
        autocast=', torch.autocast("cpu", dtype=torch.bfloat16)' if settings.precision else "",
    )
