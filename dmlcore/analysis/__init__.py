"""The numbers of a report: comparisons, intervals, tests. Draws nothing; knows neither Ray nor MLflow."""
