"""From a published archive or a folder of images to a prepared data set: acquire, import, prepare."""

from dmlcore.extras import require

require("data", __name__)
