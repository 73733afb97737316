"""Trained embedders outside of their study: a folder of plain files, the Hugging Face hub, ONNX."""

from dmlcore.extras import require

require("train", __name__)

from dmlcore.hub.embedder import Embedder  # noqa: E402

__all__ = ["Embedder"]
