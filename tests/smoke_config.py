"""The smoke config of a study: its params made small, so that every line of a large study runs in minutes.

Data sets (as synthetic archives), backbones, losses, variants, chunks, schedules and the final training stay; images,
networks, batches, epochs and seeds shrink. The results mean nothing.

`python -m tests.smoke_config` writes studies/paper-small/params.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dmlcore.config.base import parse
from dmlcore.config.study import StudyParams, load_study
from dmlcore.config.sweep import merge

ROOT = Path(__file__).resolve().parents[1]

SIDE = 32
BATCH_SIZE, CHUNK_SIZE = 16, 6
EPOCHS = 2

SMALL_NETWORKS: dict[str, dict[str, Any]] = {
    "resnet50": {"base_width": 4},
    "vit_base_patch16_224": {"img_size": SIDE, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 2},
}
"""Arguments with which timm builds a small network of the same kind."""

HEADER = """# Written by `python -m tests.smoke_config`: do not edit, change studies/paper/params.yaml instead.
# The smoke config of that study: every line of it runs in minutes, its numbers mean nothing.
"""


def smoke_params_text(source: Path) -> str:
    """Return the params.yaml of the smoke test of the study in the folder `source`."""
    load_study(source / "params.yaml")
    values = smoke_config(yaml.safe_load((source / "params.yaml").read_text(encoding="utf-8")))
    parse(StudyParams, values, f"the smoke config of {source}")
    return HEADER + yaml.safe_dump(values, sort_keys=False, width=110)


def smoke_config(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params of a study as those of its smoke test.

    Args:
        params: the content of a params.yaml.

    Returns:
        As `params`: data sets `NAME-small`, networks of SMALL_NETWORKS with random weights and inputs of 32 pixels, at
        most 16 images a batch in chunks of 6, 2 epochs with milestones in proportion, one seed, CPU.

    Raises:
        ValueError: a backbone that is not in SMALL_NETWORKS.
    """
    sweep = params["sweep"]
    small = dict(sweep) | {
        "study": f"{sweep['study']}-small",
        "datasets": [f"{name}-small" for name in sweep["datasets"]],
        "seeds": list(sweep["seeds"])[:1],
        "backbones": {label: _settings(values) for label, values in sweep["backbones"].items()},
        "overrides": [_override(override) for override in sweep.get("overrides", [])],
        "trial": merge(_settings(sweep["trial"]), {"threads": 1, "evaluation": {"bootstrap": 20}}),
        "resources": {"gpus": 0.0},
    }
    return dict(params) | {"sweep": small}


def _override(override: Mapping[str, Any]) -> dict[str, Any]:
    where = dict(override["where"])
    if "dataset" in where:
        where["dataset"] += "-small"
    return {"where": where, "set": _settings(override["set"])}


def _settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a partial TrialConfig with everything large made small."""
    small = dict(values)
    if "backbone" in small.get("model", {}):
        small["model"] = dict(small["model"]) | {"backbone": _backbone(small["model"]["backbone"])}
    if "input" in small:
        small["input"] = dict(small["input"]) | {"size": SIDE}
    if "train" in small:
        small["train"] = _training(small["train"])
    return small


def _backbone(backbone: Mapping[str, Any]) -> dict[str, Any]:
    if backbone["name"] not in SMALL_NETWORKS:
        raise ValueError(
            f"smoke_config knows {sorted(SMALL_NETWORKS)}, got backbone {backbone['name']!r}; add its arguments"
        )
    kept = {key: value for key, value in backbone.items() if key != "weights"}
    return kept | {"arguments": dict(backbone.get("arguments", {})) | SMALL_NETWORKS[backbone["name"]]}


def _training(train: Mapping[str, Any]) -> dict[str, Any]:
    small = dict(train)
    for key, limit in (("batch_size", BATCH_SIZE), ("chunk_size", CHUNK_SIZE), ("epochs", EPOCHS)):
        if key in small:
            small[key] = min(small[key], limit)
    milestones = small.get("schedule", {}).get("milestones")
    if milestones:
        last = max(milestones)
        scaled = sorted({max(1, math.floor(EPOCHS * milestone / (last + 1))) for milestone in milestones})
        small["schedule"] = dict(small["schedule"]) | {"milestones": scaled}
    return small


if __name__ == "__main__":
    target = ROOT / "studies" / "paper-small" / "params.yaml"
    target.write_text(smoke_params_text(ROOT / "studies" / "paper"), encoding="utf-8")
