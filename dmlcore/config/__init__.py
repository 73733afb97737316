"""The schema of `params.yaml` (a study) and `data/params.yaml` (the data sets), one module per reader."""
