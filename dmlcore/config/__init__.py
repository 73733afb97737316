"""The schema of `params.yaml` (a study) and `data/params.yaml` (the data sets), one module per reader."""

from dmlcore.extras import require

require("data", __name__)
