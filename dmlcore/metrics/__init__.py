"""Metrics of embeddings: retrieval, verification, and how evenly one threshold serves all classes."""
