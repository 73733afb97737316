"""An embedder that left its study: read from its folder or from the Hugging Face hub, and written there.

Shapes: N images of S x S pixels, C channels; D embedding width.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from dmlcore.calibration.monitor import read_card
from dmlcore.core.errors import DataError
from dmlcore.core.io import atomic_folder
from dmlcore.extras import require
from dmlcore.hub import folder as layout
from dmlcore.hub.folder import Settings
from dmlcore.hub.images import encode, file_of, in_memory
from dmlcore.models import Embedder as Network
from dmlcore.training.input_pipeline import InputPipeline

try:
    from huggingface_hub import PyTorchModelHubMixin as HubMixin
except ImportError:

    class HubMixin:  # type: ignore[no-redef]
        """Stands for the hub's class where the extra `hub` is not installed."""

        def push_to_hub(self, *_: Any, **__: Any) -> str:
            require("hub", "push_to_hub", "huggingface_hub")
            raise AssertionError  # it is not installed


BATCH = 64
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class Embedder(nn.Module, HubMixin):
    """Images to embeddings of L2 norm 1, with all that happened to the images in training.

    A `torch.nn.Module` and, with the extra `hub`, a `huggingface_hub.PyTorchModelHubMixin`.
    """

    def __init__(
        self,
        settings: Settings,
        network: Network,
        *,
        model_card: str = "",
        threshold_card: bytes | None = None,
    ) -> None:
        """Wrap a network; `from_pretrained` is what reads one.

        Args:
            settings: what config.json holds.
            network: images [B, C, S, S], float32 -> [B, D].
            model_card: README.md.
            threshold_card: threshold.json.
        """
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.settings, self.network = settings, network
        self.model_card, self.threshold_card = model_card, threshold_card
        for name in ("mean", "std"):
            values = torch.tensor(getattr(settings.preprocessing, name), dtype=torch.float32).reshape(
                -1, 1, 1
            )
            self.register_buffer(name, values, persistent=False)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Return (S, S, C) of the images that `forward` takes."""
        side = self.settings.preprocessing.crop
        assert side is not None  # read_settings and the export refuse it
        return side, side, self.settings.preprocessing.channels

    def forward(self, images: Tensor) -> Tensor:
        """Embed prepared images, uint8 `[N, S, S, C]` as `prepare` returns them: float32 `[N, D]`, of L2 norm 1.

        Raises:
            ValueError: another type or shape.
        """
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.input_shape:
            raise ValueError(
                f"images must be uint8 of shape [N, {', '.join(map(str, self.input_shape))}], got "
                f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}; `prepare` makes them"
            )
        half = self.settings.precision is not None
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=half):
            embeddings = self.network(self.scaled(images))
        return functional.normalize(embeddings.float())

    def scaled(self, images: Tensor) -> Tensor:
        """Return the network's input, `[N, C, S, S]` float32, of prepared images."""
        return (images.permute(0, 3, 1, 2).float() / 255.0 - self.mean) / self.std

    def prepare(self, images: Sequence[Path | str | bytes | Image.Image]) -> NDArray[np.uint8]:
        """Decode, resize and crop images as in training.

        Args:
            images: N paths, bytes of image files, or pictures of Pillow.

        Returns:
            [N, S, S, C].

        Raises:
            DataError: one of them is no image, damaged, or costs too much to decode.
        """
        preparation = self.settings.preprocessing
        decoding = preparation.decoding()
        encoded = encode([file_of(image) for image in images], decoding, preparation.channels)
        if broken := [image.error for image in encoded if image.error]:
            raise DataError(f"{len(broken)} of {len(encoded)} images cannot be read, first: {broken[0]}")
        if not encoded:
            return np.empty((0, *self.input_shape), np.uint8)
        stored = in_memory(encoded, decoding, preparation.channels)
        pipeline = InputPipeline(stored, size=preparation.crop, random_crop=None)
        return pipeline.evaluation_batch(np.arange(len(encoded))).numpy()

    def embed(self, images: Sequence[Path | str | bytes | Image.Image]) -> NDArray[np.float32]:
        """Embed image files in evaluation mode: [N, D], of L2 norm 1.

        Args:
            images: N paths, bytes of image files, or pictures of Pillow.

        Raises:
            DataError: as `prepare`.
        """
        training, device = self.training, self.mean.device
        self.eval()
        parts = [np.empty((0, self.settings.head.embedding_dim), np.float32)]
        for start in range(0, len(images), BATCH):
            prepared = torch.from_numpy(self.prepare(images[start : start + BATCH]))
            with torch.inference_mode():
                parts.append(self(prepared.to(device)).cpu().numpy())
        self.train(training)
        return np.concatenate(parts)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **hub: Any) -> Self:
        """Read an embedder, in evaluation mode on the CPU; nothing is unpickled, no code of it is run.

        Args:
            pretrained_model_name_or_path: a folder of `dmlcore export-model`, or a model id of the hub, OWNER/NAME.
            hub: for an id, what `huggingface_hub.snapshot_download` takes: `revision`, `token`, `cache_dir`,
                `force_download`, `local_files_only`.

        Raises:
            ValueError: a file of it is missing, damaged, or not what config.json says; or no folder and no id.
            MissingExtraError: an id is given, and the extra `hub` is not installed.
        """
        name = pretrained_model_name_or_path
        if Path(name).is_dir():
            return cls._read(Path(name), Path(name))
        if not HUB_ID.fullmatch(str(name)):
            raise ValueError(
                f"{name} must be a folder that `dmlcore export-model` wrote, or a model id of the hub, OWNER/NAME"
            )
        require("hub", f"the model {name} of the hub", "huggingface_hub")
        from huggingface_hub import snapshot_download

        snapshot = Path(snapshot_download(str(name), allow_patterns=list(layout.FILES), **hub))
        return cls._read(
            snapshot, snapshot.parents[1]
        )  # where the hub's cache has the files that it links to

    @classmethod
    def _read(cls, folder: Path, root: Path) -> Self:
        settings = layout.read_settings(folder, root)
        card, threshold = folder / layout.CARD, None
        text = layout.read_file(card, root).decode(errors="replace") if card.exists() else ""
        if settings.threshold is not None:
            threshold = layout.read_file(folder / layout.THRESHOLD, root, settings.threshold)
            read_card(folder / layout.THRESHOLD)
        return cls(
            settings, layout.read_network(settings, folder, root), model_card=text, threshold_card=threshold
        ).eval()

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        onnx: bool = True,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **hub: Any,
    ) -> str | None:
        """Write the folder that `from_pretrained` reads, all files or none; model.onnx where the extra `onnx` is.

        Args:
            save_directory: the folder; of an existing one all files must be those of an export, which are replaced.
            onnx: False: without model.onnx.
            push_to_hub: upload it too.
            repo_id: OWNER/NAME there; None: the folder's name.
            hub: for the upload, what `push_to_hub` takes.

        Returns:
            The address of the upload, or None.

        Raises:
            ValueError: the folder has other files.
        """
        folder = Path(save_directory).absolute()
        layout.check_folder(folder)
        with atomic_folder(folder) as temporary:
            for name, content in self._files(onnx).items():
                (temporary / name).write_bytes(content)
        hub = {name: value for name, value in hub.items() if name not in ("config", "model_card_kwargs")}
        return self.push_to_hub(repo_id or folder.name, **hub) if push_to_hub else None

    def _files(self, onnx: bool) -> dict[str, bytes]:
        from safetensors.torch import save

        from dmlcore.hub.onnx import OPSET, onnx_graph

        weights = save({name: value.contiguous().cpu() for name, value in self.network.state_dict().items()})
        files = {layout.WEIGHTS: weights, layout.CARD: self.model_card.encode()}
        graph = onnx_graph(self) if onnx else None
        values = self.settings.model_dump(mode="json") | {"weights": layout.facts_of(weights), "onnx": None}
        if graph is not None:
            files[layout.ONNX], values["onnx"] = graph, layout.facts_of(graph) | {"opset": OPSET}
        if self.threshold_card is not None:
            files[layout.THRESHOLD] = self.threshold_card
        return files | {layout.CONFIG: (json.dumps(values, indent=1) + "\n").encode()}
