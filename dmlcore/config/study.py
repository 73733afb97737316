"""A whole `params.yaml`: sections `sweep` and `aggregate`."""

from __future__ import annotations

from pathlib import Path

from dmlcore.config.base import Strict, parse, read_yaml
from dmlcore.config.report import AggregateConfig
from dmlcore.config.sweep import SweepConfig


class StudyParams(Strict):
    sweep: SweepConfig
    aggregate: AggregateConfig = AggregateConfig()


def load_study(path: Path) -> StudyParams:
    """The study that `path` (a params.yaml) describes."""
    return parse(StudyParams, read_yaml(path), str(path))
