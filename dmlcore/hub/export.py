"""A finished trial of a study -> an embedder that can leave it."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dmlcore.calibration.monitor import read_card
from dmlcore.config.base import parse
from dmlcore.config.trial import TrialConfig
from dmlcore.data.dataset import PreparedDataset
from dmlcore.hub.embedder import Embedder
from dmlcore.hub.folder import Backbone, FileFacts, Head, Settings, Threshold, facts_of
from dmlcore.hub.model_card import model_card
from dmlcore.models import Embedder as Network
from dmlcore.records import TrialRecord
from dmlcore.training.load import trained_embedder
from dmlcore.training.preparation import preparation_of
from dmlcore.training.store import TrialStore

LIBRARIES = ("numpy", "pillow", "safetensors", "timm", "torch", "torchvision")
UNWRITTEN = FileFacts(bytes=1, sha256="0" * 64)
"""Facts of files that come with `save_pretrained`."""


def exported(record: TrialRecord, store: TrialStore, prepared: Path, card: Path | None = None) -> Embedder:
    """Make the embedder of a finished trial, with its model card.

    Args:
        record: of the trial.
        store: its files.
        prepared: the folder of prepared data sets.
        card: of `dmlcore calibrate`, for this trial's embeddings; None: no threshold goes with it.

    Raises:
        ValueError: the data set is not prepared as it was, its images have no one way to the network's input, or the
            card is broken or of another trial.
    """
    config = parse(TrialConfig, record.config, f"trial {record.trial_key}")
    folder = prepared / config.dataset
    preparation = preparation_of(config, folder)
    if preparation.crop is None:
        raise ValueError(
            f"trial {record.trial_key} must have `input.size`, the side of its network's input, to leave the study: "
            "its images are JPEG files of one size each; train it with `input`"
        )
    network = trained_embedder(config, store, channels=preparation.channels).eval()
    threshold = threshold_of(card, record) if card else None
    settings = Settings(
        backbone=Backbone(
            name=config.model.backbone.name,
            arguments=config.model.backbone.arguments,
            in_channels=1 if preparation.channel_order == "L" else 3,
            layout=_layout(network, preparation.crop, preparation.channels),
        ),
        head=Head(**config.model.model_dump(include=set(Head.model_fields))),
        precision=config.train.precision,
        preprocessing=preparation,
        trial=_trial(record, PreparedDataset.open(folder).summary),
        versions=_versions(),
        weights=UNWRITTEN,
        onnx=None,
        threshold=threshold,
    )
    summary = PreparedDataset.open(folder).summary
    text = model_card(record, config, summary, settings, json.loads(card.read_bytes()) if card else None)
    return Embedder(settings, network, model_card=text, threshold_card=card.read_bytes() if card else None)


def threshold_of(card: Path, record: TrialRecord) -> Threshold:
    """Return the threshold of a card of `dmlcore calibrate`.

    Raises:
        ValueError: it is none, or of another trial than `record`.
    """
    content = read_card(card)
    trial = content.get("trial_key")
    if trial is not None and str(trial).split("-")[0] != record.trial_key.split("-")[0]:
        raise ValueError(
            f"{card} must be a card of trial {record.trial_key}, it is of {trial!r:.60}; calibrate the trial"
        )
    values = {name: content["threshold"].get(name) for name in ("distance", "cosine_similarity")}
    return parse(Threshold, values | facts_of(card.read_bytes()), f"{card}: threshold")


def _layout(network: Network, side: int, channels: int) -> Any:
    with torch.inference_mode():
        features = network.backbone.model.forward_features(torch.zeros(1, channels, side, side))
    return "NLC" if features.dim() == 3 else "NHWC" if network.backbone.features_last else "NCHW"


def _trial(record: TrialRecord, summary: dict[str, Any]) -> dict[str, str]:
    return {
        "key": record.trial_key,
        "dataset": str(summary["name"]),
        "data_hash": str(summary["data_hash"]),
        "licence": str(summary["licence"]),
    }


def _versions() -> dict[str, str]:
    from dmlcore import __version__

    return {"dmlcore": __version__} | {name: version(name) for name in LIBRARIES}
