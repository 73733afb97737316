"""A study's `params.yaml`: section `sweep`, and section `aggregate` with its statistics and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from dmlcore.config.base import PositiveFloat, Share, Strict, parse, read_yaml
from dmlcore.config.sweep import SweepConfig


class FigureConfig(Strict):
    width_inches: PositiveFloat = 9.0
    height_inches: PositiveFloat = 6.0
    dots_per_inch: Annotated[int, Field(ge=50, le=600)] = 130


class AggregateConfig(Strict):
    confidence: Share = 0.95
    """Level of the intervals over seeds."""
    accuracy: str = "test/map_at_r"
    """The accuracy axis of the trade-off plot."""
    inconsistency: str = "test/opis"
    parts: tuple[Literal["pareto", "margins", "search", "embedding"], ...] = ()
    """Analyses besides the comparisons: accuracy against inconsistency over many losses, a grid of margins, the
    settings that a search tried, a plot of a 2-D embedding."""
    count_search_seed: bool = False
    """Of a study with a search: compare the chosen settings also at the seed at which they were chosen, where the
    best of many tries looks better than it is. A study with that seed alone counts it in any case, and says so."""
    longer_run: str | None = None
    """Folder of a study, relative to this one's, that trains configurations of this one longer, as `sweep.longer_run`
    does in the study itself."""
    figure: FigureConfig = FigureConfig()
    run_link: Annotated[str, Field(pattern=r"^https?://[^/?#@]*([/?#].*)?$")] | None = None
    """Address of a trial's MLflow run for report.html, `{trial_key}` standing for the trial's key. Without user and
    password, which the page would show."""


class StudyParams(Strict):
    sweep: SweepConfig
    aggregate: AggregateConfig = AggregateConfig()


def load_study(path: Path) -> StudyParams:
    """Read the study of `path` (a params.yaml)."""
    return parse(StudyParams, read_yaml(path), str(path))
