"""One distance threshold from validation embeddings, and its error rates by class on test."""

from dmlcore.calibration.card import calibration_card
from dmlcore.calibration.intervals import Drift, Rate, drift
from dmlcore.calibration.run import Calibration, calibrate, calibrate_pairs, calibrate_targets
from dmlcore.calibration.splits import SplitRates, measure_rates
from dmlcore.calibration.summaries import class_rows
from dmlcore.calibration.threshold import Target, Threshold, find_threshold

__all__ = [
    "Calibration",
    "Drift",
    "Rate",
    "SplitRates",
    "Target",
    "Threshold",
    "calibrate",
    "calibrate_pairs",
    "calibrate_targets",
    "calibration_card",
    "class_rows",
    "drift",
    "find_threshold",
    "measure_rates",
]
