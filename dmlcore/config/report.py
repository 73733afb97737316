"""The section `aggregate` of a study: statistics and figures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dmlcore.config.base import PositiveFloat, Share, Strict


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
    parts: tuple[Literal["pareto", "margins", "embedding"], ...] = ()
    """Analyses besides the comparisons: accuracy against inconsistency over many losses, the grid of margins,
    a plot of a 2-D embedding."""
    figure: FigureConfig = FigureConfig()
    run_link: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """Address of a trial's MLflow run for report.html, `{trial_key}` standing for the trial's key."""
