"""Backbones by name and the embedder on top of them."""

from dmlcore.models.backbones import Backbone, build_backbone
from dmlcore.models.embedder import Embedder, Head, build_embedder, build_head

__all__ = ["Backbone", "Embedder", "Head", "build_backbone", "build_embedder", "build_head"]
