"""Search in place of a grid: Optuna asks for settings, the records tell what they gave, a log keeps what was asked."""
