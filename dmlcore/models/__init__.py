"""Backbones by name and the embedder on top of them."""

from dmlcore.models.backbones import Backbone, build_backbone
from dmlcore.models.embedder import Embedder, build_embedder

__all__ = ["Backbone", "Embedder", "build_backbone", "build_embedder"]
