"""Trackers: views of the trial records that can be rebuilt from them at any time."""

from importlib import import_module

from dmlcore.extras import require

require("sweep", __name__)

from dmlcore.config.sweep import TRACKERS  # noqa: E402
from dmlcore.tracking.background import BackgroundTracker  # noqa: E402
from dmlcore.tracking.base import Tracker  # noqa: E402
from dmlcore.tracking.mlflow import MlflowTracker  # noqa: E402

__all__ = ["BackgroundTracker", "MlflowTracker", "Tracker", "tracker_class"]


def tracker_class(name: str) -> type[Tracker]:
    """Import the tracker of that name, a key of `dmlcore.config.sweep.TRACKERS`."""
    module, _, attribute = TRACKERS[name].partition(":")
    found: type[Tracker] = getattr(import_module(module), attribute)
    return found
