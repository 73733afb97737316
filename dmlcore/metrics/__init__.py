"""Metrics of embeddings: retrieval, verification, and how evenly one threshold serves all classes."""

from dmlcore.metrics.evaluation import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
