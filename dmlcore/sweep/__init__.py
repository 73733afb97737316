"""The sweep: the cells of a grid, their keys, what is still to run, and Ray Tune to run it."""

from dmlcore.extras import require

require("sweep", __name__)
