"""Trackers: views of the trial records that can be rebuilt from them at any time."""

from dmlcore.tracking.background import BackgroundTracker
from dmlcore.tracking.base import Tracker
from dmlcore.tracking.mlflow import MlflowTracker

TRACKERS: dict[str, type[Tracker]] = {"mlflow": MlflowTracker, "none": Tracker}
"""By the name that `sweep.tracker` in params.yaml gives; config/sweep.py lists the names."""

__all__ = ["TRACKERS", "BackgroundTracker", "MlflowTracker", "Tracker"]
