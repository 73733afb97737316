"""Trackers: views of the trial records that can be rebuilt from them at any time."""

from importlib import import_module

from dmlcore.config.sweep import TRACKERS
from dmlcore.tracking.background import BackgroundTracker
from dmlcore.tracking.base import Tracker
from dmlcore.tracking.mlflow import MlflowTracker

__all__ = ["BackgroundTracker", "MlflowTracker", "Tracker", "tracker_class"]


def tracker_class(name: str) -> type[Tracker]:
    """Import the tracker of that name, a key of `dmlcore.config.sweep.TRACKERS`."""
    module, _, attribute = TRACKERS[name].partition(":")
    found: type[Tracker] = getattr(import_module(module), attribute)
    return found
