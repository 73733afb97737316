"""The graph of an embedder for ONNX Runtime: prepared images in, embeddings of L2 norm 1 out.

Shapes: N images of S x S pixels, C channels; D embedding width.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from dmlcore.hub.embedder import Embedder

OPSET = 18
MODULES = ("onnx", "onnxscript", "onnxruntime")
LARGEST_BYTES = 1_900_000_000
"""Of the weights: a file of ONNX holds less than 2 GiB."""
TOLERANCE = 1e-3


class Float32(nn.Module):
    """An embedder without autocast, which no graph has: `[N, S, S, C]` uint8 -> `[N, D]`."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder

    def forward(self, images: Tensor) -> Tensor:
        return functional.normalize(self.embedder.network(self.embedder.scaled(images)))


def onnx_graph(embedder: Embedder) -> bytes | None:
    """Return the graph, checked against torch on noise; None where the extra `onnx` is missing, or above 2 GB.

    Raises:
        ValueError: ONNX Runtime does not compute what torch computes.
    """
    size = sum(value.nbytes for value in embedder.network.state_dict().values())
    if size > LARGEST_BYTES or any(find_spec(module) is None for module in MODULES):
        return None
    draw = np.random.default_rng(0)
    example = draw.integers(0, 256, (3, *embedder.input_shape), dtype=np.uint8)
    training, device = embedder.training, embedder.mean.device
    model = Float32(embedder).eval().cpu()
    try:
        graph = _exported(model, torch.from_numpy(example[:2]))
        with torch.inference_mode():
            expected = model(torch.from_numpy(example)).numpy()
    finally:
        embedder.train(training).to(device)
    _compare(run_onnx(graph, example), expected)
    return graph


def _exported(model: nn.Module, example: Tensor) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own exporter, about its own parts
        program = torch.onnx.export(
            model,
            (example,),
            input_names=["images"],
            output_names=["embeddings"],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes={"images": {0: torch.export.Dim("N")}},
            verbose=False,
        )
    assert program is not None
    graph: bytes = program.model_proto.SerializeToString()
    return graph


def run_onnx(graph: bytes, images: np.ndarray) -> np.ndarray:
    """Embed prepared images with ONNX Runtime on the CPU."""
    from onnxruntime import InferenceSession

    session = InferenceSession(graph, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(["embeddings"], {"images": images})[0]
    return found


def _compare(found: np.ndarray, expected: np.ndarray) -> None:
    if (largest := float(np.abs(found - expected).max())) > TOLERANCE:
        raise ValueError(
            f"model.onnx must embed as torch does, to {TOLERANCE:g}; they differ by {largest:.2g}; export without "
            "it: --no-onnx"
        )
