"""A prepared data set as training reads it: manifest, images, crops, transforms."""

from dmlcore.extras import require

require("data", __name__)
