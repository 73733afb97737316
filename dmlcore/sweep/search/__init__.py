"""Search instead of a grid: Optuna suggests settings, a log keeps the suggestions, records tell what they gave."""
