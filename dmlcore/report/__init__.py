"""What a study says: statistics over seeds, tables and plots. Reads result files only; knows neither Ray nor MLflow."""

from dmlcore.extras import require

require("pipeline", __name__)
