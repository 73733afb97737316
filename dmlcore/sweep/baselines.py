"""Baselines that need no training: raw pixels, measured once per data set and evaluation code."""

from __future__ import annotations

import json
from pathlib import Path

from dmlcore.config.base import canonical
from dmlcore.config.trial import EvaluationConfig
from dmlcore.core.hashing import json_sha256
from dmlcore.core.io import write_atomically
from dmlcore.data.dataset import PreparedDataset
from dmlcore.records import Metrics, finite
from dmlcore.training.code_hash import KEYED_BY_VALUE, code_hashes, library_versions
from dmlcore.training.raw_pixels import raw_pixel_metrics


def raw_pixel_baseline(data: PreparedDataset, cache: Path) -> Metrics:
    """Return the metrics `test/...` of the raw pixels of a data set.

    They are read from `cache` where pixels, code and library versions are the same.

    Args:
        data: the data set.
        cache: folder with one small file per data set; a file that cannot be read is replaced.
    """
    settings = EvaluationConfig()
    key = json_sha256(
        {
            "data": data.data_hash,
            "evaluation": canonical(settings),
            "code": code_hashes(frozenset({"dmlcore.training.raw_pixels"}), KEYED_BY_VALUE),
            # No train key says it here: torch reads the pixels and multiplies, torchvision decodes.
            "versions": library_versions(),
        }
    )
    file = cache / f"{data.folder.name}.json"
    known = _read(file, key)
    if known is None:
        known = finite(raw_pixel_metrics(data.split("test"), settings))
        write_atomically(file, json.dumps({"key": key, "metrics": known}, indent=1) + "\n")
    return known


def _read(file: Path, key: str) -> Metrics | None:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        metrics: Metrics = stored["metrics"]
        return metrics if stored["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
