"""The numbers of a report: comparisons, intervals, tests. Draws nothing; knows neither Ray nor MLflow."""

from dmlcore.extras import require

require("pipeline", __name__)
