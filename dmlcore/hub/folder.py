"""The folder of an exported embedder: what its files hold, and how they are read when they come from anybody.

Nothing is unpickled, no file outside of the folder is opened, sizes and checksums are compared before the weights are
used, and a network is built only if its tensors are those of the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from dmlcore.config.base import ConfigError, PositiveInt, Strict, parse
from dmlcore.core.sealed_json import SealError, json_object
from dmlcore.models import Embedder as Network
from dmlcore.models import build_backbone, build_embedder
from dmlcore.training.preparation import Preparation

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
ONNX, THRESHOLD = "model.onnx", "threshold.json"
FILES = (CONFIG, WEIGHTS, CARD, ONNX, THRESHOLD)
MOST_TEXT_BYTES = 1 << 26
"""Of config.json, README.md and threshold.json; the largest card of `dmlcore calibrate` is below it."""
LARGEST_NUMBER = 1 << 16
"""Of an argument of a backbone, and of the width of embeddings."""
INPUT = "images: uint8 [N, H, W, C], prepared as `preprocessing` says"
OUTPUT = "embeddings: float32 [N, D], of L2 norm 1"


class FileFacts(Strict):
    """What a file must be."""

    bytes: PositiveInt
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Backbone(Strict):
    """A network of timm."""

    name: Annotated[str, Field(max_length=128)]
    arguments: dict[str, Any]
    """Of its constructor; pretrained weights are not among them."""
    in_channels: Literal[1, 3]
    layout: Literal["NCHW", "NHWC", "NLC"]
    """Of its features."""


class Head(Strict):
    """From features to embeddings."""

    pooling: Literal["average", "gem", "token"]
    normalization: Literal["none", "layer_norm", "batch_norm"]
    embedding_dim: Annotated[int, Field(ge=1, le=LARGEST_NUMBER)]


class Onnx(FileFacts):
    """The graph of model.onnx: input `images`, output `embeddings`, both with a free first dimension."""

    opset: PositiveInt


class Threshold(FileFacts):
    """The calibrated threshold; its card is threshold.json."""

    distance: Annotated[float, Field(ge=0.0, le=2.0)]
    cosine_similarity: Annotated[float, Field(ge=-1.0, le=1.0)]


class Settings(Strict):
    """config.json."""

    format: Literal["dmlcore-embedder"] = "dmlcore-embedder"
    schema_version: Literal[1] = 1
    input: Annotated[str, Field(pattern="^images: uint8 ")] = INPUT
    output: Annotated[str, Field(pattern="^embeddings: float32 ")] = OUTPUT
    backbone: Backbone
    head: Head
    precision: Literal["bfloat16"] | None
    """Of the network's arithmetic (autocast); model.onnx computes in float32."""
    preprocessing: Preparation
    trial: dict[str, str]
    versions: dict[str, str]
    """Of the libraries that wrote the folder."""
    weights: FileFacts
    onnx: Onnx | None
    threshold: Threshold | None


def facts_of(content: bytes) -> dict[str, Any]:
    """Return the values of `FileFacts`."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def read_settings(folder: Path, root: Path) -> Settings:
    """Read config.json of `folder`; its files may be links to below `root`.

    Raises:
        ValueError: it is missing, no JSON, of another format, or a value in it is impossible.
    """
    path = folder / CONFIG
    try:
        values = json_object(read_file(path, root))
    except SealError as error:
        raise ValueError(f"{path} {error}; export the trial again") from None
    if values.get("format") != "dmlcore-embedder":
        raise ValueError(
            f"{path} must be of the format dmlcore-embedder, got {values.get('format')!r:.60}; "
            "`dmlcore export-model` writes one"
        )
    try:
        settings = parse(Settings, values, str(path))
    except ConfigError as error:
        raise ValueError(" ".join(str(error).split())) from None
    if settings.backbone.in_channels != settings.preprocessing.channels:
        raise ValueError(
            f"{path}: backbone.in_channels must be {settings.preprocessing.channels}, as the images have, got "
            f"{settings.backbone.in_channels}"
        )
    if settings.preprocessing.crop is None:
        raise ValueError(f"{path}: preprocessing.crop must be the side of the input, got null")
    check_arguments(settings.backbone.arguments, path)
    return settings


def check_arguments(arguments: Mapping[str, Any], path: Path) -> None:
    """Refuse arguments of a backbone that read files, or whose network no machine could hold.

    Raises:
        ValueError: there is one.
    """
    for name in arguments:
        if "pretrained" in name or name.endswith(("_path", "_dir", "_file", "_cfg")):
            raise ValueError(f"{path}: backbone.arguments must name no file and no weights, got {name!r:.60}")
    waiting: list[Any] = list(arguments.values())
    for value in waiting:  # which grows meanwhile
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
        elif isinstance(value, int | float) and not abs(value) <= LARGEST_NUMBER:
            raise ValueError(
                f"{path}: numbers of backbone.arguments must be at most {LARGEST_NUMBER:,}, got {value!r:.40}"
            )


def read_file(path: Path, root: Path, facts: FileFacts | None = None) -> bytes:
    """Return the bytes of a file, compared with what it must be.

    Args:
        path: of the file.
        root: the folder that it must be in once its links are followed.
        facts: its size and checksum; None: a text of at most MOST_TEXT_BYTES.

    Raises:
        ValueError: no such file, a link out of `root`, too large, or another content.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; `dmlcore export-model` writes it")
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"{path}: a link must not lead out of its folder; copy the file")
    size = path.stat().st_size
    if facts is None and size > MOST_TEXT_BYTES:
        raise ValueError(f"{path} must have at most {MOST_TEXT_BYTES:,} bytes, got {size:,}")
    if facts is not None and size != facts.bytes:
        raise ValueError(
            f"{path} must have {facts.bytes:,} bytes, as {CONFIG} says, got {size:,}; fetch it again"
        )
    content = path.read_bytes()
    if facts is not None and (found := facts_of(content)["sha256"]) != facts.sha256:
        raise ValueError(
            f"{path} must have the sha256 {facts.sha256}, as {CONFIG} says, got {found}; fetch it again"
        )
    return content


def read_network(settings: Settings, folder: Path, root: Path) -> Network:
    """Build the network and load model.safetensors into it, in evaluation mode.

    Raises:
        ValueError: the weights are damaged, or are not those of the network.
    """
    path = folder / WEIGHTS
    content = read_file(path, root, settings.weights)
    try:
        state = load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no safetensors file: {str(error)[:120]}") from None
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and then replaced
        try:
            # Without memory first: a config may ask for more than this machine has.
            with torch.device("meta"):
                _check_tensors(build_network(settings).state_dict(), state, path)
            network = build_network(settings)
        except ValueError:
            raise
        except Exception as error:  # constructors raise every kind of error on impossible arguments
            raise ValueError(
                f"{folder / CONFIG}: timm cannot build the backbone: {str(error)[:160]}"
            ) from None
    network.load_state_dict(state)
    return network.eval()


def build_network(settings: Settings) -> Network:
    """Build the network with random weights."""
    own = settings.backbone
    backbone = build_backbone(own.name, arguments=own.arguments, in_channels=own.in_channels)
    return build_embedder(backbone, **settings.head.model_dump())


def _check_tensors(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    shapes = {
        name: None if name not in found else (found[name].shape, found[name].dtype)
        for name in {**wanted, **found}
    }
    for name, shape in sorted(shapes.items()):
        expected = (wanted[name].shape, wanted[name].dtype) if name in wanted else None
        if shape != expected:
            raise ValueError(
                f"{path}: its tensors must be those of the network in {CONFIG}, {name!r:.80} is not: expected "
                f"{_described(expected)}, got {_described(shape)}"
            )


def _described(tensor: tuple[torch.Size, torch.dtype] | None) -> str:
    return "none" if tensor is None else f"{list(tensor[0])} {str(tensor[1]).removeprefix('torch.')}"


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but an export: what is there is replaced.

    Raises:
        ValueError: it does, or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} must be a folder, got a file; give another name")
    others = (
        sorted(path.name for path in folder.iterdir() if path.name not in FILES) if folder.is_dir() else []
    )
    if others:
        raise ValueError(
            f"{folder} must be new or hold an export alone, it has {others[0]!r:.80}; give another folder"
        )
