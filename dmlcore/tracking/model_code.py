"""The code of a model in MLflow: copied next to its weights and run when the model is loaded."""

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.pyfunc import PythonModel, PythonModelContext
from safetensors.torch import load_file

from dmlcore.config.base import parse
from dmlcore.config.trial import TrialConfig
from dmlcore.data.images import RawImages
from dmlcore.losses.base import normalize
from dmlcore.training.load import embed_images, rebuilt


class EmbeddingModel(PythonModel):
    """Turns images of the size that the network takes into embeddings of length 1.

    `threshold_card` is the card of `dmlcore calibrate`, if the model was published with one, else None.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Rebuild the network from the trial's config and its weights; read the card."""
        self.config = parse(TrialConfig, context.model_config["trial"], "trial")
        state = load_file(Path(context.artifacts["weights"]))
        self.model = rebuilt(self.config.model, state, channels=context.model_config["channels"])
        card = context.artifacts.get("threshold")
        self.threshold_card = json.loads(Path(card).read_bytes()) if card else None

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Embed images [N, H, W, C] uint8: [N, D] float32, L2-normalised."""
        embeddings = embed_images(self.model, self.config, RawImages(np.asarray(model_input, dtype=np.uint8)))
        return normalize(embeddings).numpy()


mlflow.models.set_model(EmbeddingModel())
