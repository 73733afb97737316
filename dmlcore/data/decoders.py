"""The decoders of JPEG files: libjpeg-turbo on the CPU, nvJPEG on a GPU.

On the CPU, torchvision's operator and torchcodec's function are the same library: the same bits, as fast. torchvision
announces that its own will go (0.29); then torchcodec takes its place. nvJPEG interpolates halved chroma and rounds
the cosine transform differently: see docs/how-to/gpu.md.
Shapes: H x W pixels of an image, each image another size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torchvision.io  # registers the operators
from torch import Tensor

from dmlcore.data.images import Pixels

RGB = torchvision.io.ImageReadMode.RGB.value


class DecodingError(ValueError):
    """A file is not a readable JPEG file."""


def decode(file: Pixels) -> Pixels:
    """Decode a JPEG file, bytes [size], on the CPU: [H, W, 3].

    Raises:
        DecodingError: it is not a readable JPEG file.
    """
    try:
        decoded = _cpu_decoder()(torch.from_numpy(file))
    except RuntimeError as error:
        raise DecodingError(str(error).splitlines()[0]) from error
    return decoded.permute(1, 2, 0).numpy()


@cache
def _cpu_decoder() -> Callable[[Tensor], Tensor]:
    # The operator itself: torchvision.io.decode_jpeg warns that it moves to torchcodec, with the same decoder.
    if hasattr(torch.ops.image, "decode_jpeg"):
        return lambda file: torch.ops.image.decode_jpeg(file, RGB, False)
    return lambda file: _torchcodec()(file, mode="RGB")


def _torchcodec() -> Callable[..., Any]:
    try:
        from torchcodec.decoders import decode_jpeg
    except (ImportError, RuntimeError, OSError) as error:
        raise ImportError(
            "no decoder of JPEG files: this torchvision has none and torchcodec cannot be imported; "
            f"install the torchcodec that belongs to torch {torch.__version__}"
        ) from error
    return decode_jpeg


def decode_on(device: torch.device, files: Sequence[Pixels]) -> list[Tensor]:
    """Decode JPEG files, each bytes [size], into memory of `device`: each [3, H, W].

    nvJPEG writes on a stream of its own into memory that the current stream may still read, so the current stream must
    have nothing left to do.

    Raises:
        DecodingError: at least one is not a readable JPEG file, or nvJPEG is not there.
    """
    if device.type != "cuda":
        return [torch.from_numpy(decode(file)).permute(2, 0, 1) for file in files]
    tensors = [torch.from_numpy(file) for file in files]
    try:
        decoded: list[Tensor] = _gpu_decoder()(tensors, device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise DecodingError(str(error).splitlines()[0]) from error
    return decoded


@cache
def _gpu_decoder() -> Callable[[list[Tensor], torch.device], list[Tensor]]:
    if hasattr(torch.ops.image, "decode_jpegs_cuda"):
        return lambda files, device: torch.ops.image.decode_jpegs_cuda(files, RGB, device)
    return lambda files, device: _torchcodec()(files, mode="RGB", device=device)
