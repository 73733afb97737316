"""How many images generated archives hold, and of which size."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dmlcore.config.base import Strict


class SyntheticConfig(Strict):
    """Generated archives in the layout of a published data set: for tests and the smoke config, never the real data."""

    classes: Annotated[int, Field(ge=4, le=196)] = 16
    """The first half trains, as in the published split."""
    images_per_class: Annotated[int, Field(ge=2)] = 8
    side: Annotated[int, Field(ge=16, le=1024)] = 64
    """Pixels of an image's short edge."""
    seed: int = 0
