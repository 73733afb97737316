"""`dmlcore embed`: images to embeddings with the model of a trained trial."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dmlcore.cli.options import FOUND, Study, prepared_folder
from dmlcore.cli.trials import finished_trial

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dmlcore.config.data import PreprocessConfig
    from dmlcore.config.trial import TrialConfig
    from dmlcore.data.images import Images
    from dmlcore.datasets.prepare.encoding import EncodedImage
    from dmlcore.models import Embedder
    from dmlcore.training.store import TrialStore


AT_ONCE = 512


def embed(
    images: Annotated[list[Path], typer.Argument(help="Image files, and folders of them, read recursively.")],
    trial: Annotated[str, typer.Option(help="Key of a finished trial of the study.")],
    study: Study = Path(),
    out: Annotated[
        Path, typer.Option(help="Write the embeddings here: NumPy file [N, D] of float32, not normalised.")
    ] = Path("embeddings.npy"),
    paths: Annotated[
        Path | None, typer.Option(help="Write `row,path` here as CSV; default: OUT with .csv.")
    ] = None,
) -> None:
    """Embed images with a trial's model, prepared as its training images were; broken ones are named and left out.

    Exits with 1 if an image was broken.

    Example: dmlcore embed photographs/ --trial 0123abcd --study . --out embeddings.npy --paths paths.csv
    """
    from dmlcore.config.base import parse
    from dmlcore.config.trial import TrialConfig

    files = list(image_files(images))
    record, store = finished_trial(study, trial)
    config = parse(TrialConfig, record.config, f"trial {record.trial_key}")
    model = trained_model(config, store, prepared_folder(study.resolve()) / config.dataset)
    embeddings, kept, broken = _embed_files(files, config, model)
    for error in broken:
        typer.echo(f"dmlcore: left out: {error}", err=True)
    written = paths or out.with_suffix(".csv")
    _write(embeddings, kept, out, written)
    typer.echo(f"{len(kept)} of {len(files)} images embedded, {embeddings.shape[1]} wide: {out}, {written}")
    if broken:
        raise typer.Exit(FOUND)


@dataclass(frozen=True)
class Trained:
    """The model of a trial as it embedded its test images, and how its images were prepared."""

    model: Embedder
    preprocess: PreprocessConfig
    channels: int


def image_files(given: list[Path]) -> Iterator[Path]:
    """The files that are named, and those with an image's suffix below the folders that are named, sorted.

    Raises:
        ValueError: a path that is neither, or a folder without images.
    """
    from dmlcore.datasets.acquire.local import SUFFIXES

    for path in given:
        if path.is_file():
            yield path
            continue
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not found:
            raise ValueError(f"{path} must be an image file or a folder with images ({', '.join(SUFFIXES)})")
        yield from found


def trained_model(config: TrialConfig, store: TrialStore, prepared: Path) -> Trained:
    """Rebuild a trial's model from its config and stored weights.

    Raises:
        ValueError: the data set is not prepared, or was prepared under other settings than data/params.yaml has now.
    """
    from dmlcore.config.data import load_datasets
    from dmlcore.data.dataset import PreparedDataset
    from dmlcore.training.load import trained_embedder

    dataset = PreparedDataset.open(prepared)
    preprocess = load_datasets(prepared.parents[1] / "params.yaml").datasets[config.dataset].preprocess
    for name in ("image_size", "encoding"):
        if dataset.summary[name] != getattr(preprocess, name):
            raise ValueError(
                f"{prepared} must be prepared under the {name} of data/params.yaml, {getattr(preprocess, name)}, "
                f"got {dataset.summary[name]}; run `dvc repro`"
            )
    channels = int(dataset.summary["channels"])
    model = trained_embedder(config, store, channels=channels)
    return Trained(model, preprocess, channels)


def _embed_files(
    files: list[Path], config: TrialConfig, trained: Trained
) -> tuple[NDArray[np.float32], list[Path], list[str]]:
    """Embeddings [N, D] of the images that can be read, their files, and what is wrong with the others."""
    import torch

    from dmlcore.training.load import embed_images

    parts, kept, broken = [], [], []
    for start in range(0, len(files), AT_ONCE):
        chunk = files[start : start + AT_ONCE]
        encoded = _encoded(chunk, trained.preprocess, trained.channels)
        good = [image for image in encoded if not image.error]
        kept += [path for path, image in zip(chunk, encoded, strict=True) if not image.error]
        broken += [image.error for image in encoded if image.error]
        if good:
            parts.append(embed_images(trained.model, config, stored_images(good, trained)))
    if not parts:
        raise ValueError(
            f"none of the {len(files)} images can be read, the first: {broken[0]}; nothing is written"
        )
    return torch.cat(parts).numpy(), kept, broken


def _write(embeddings: NDArray[np.float32], kept: list[Path], out: Path, paths: Path) -> None:
    import numpy as np
    import polars as pl

    from dmlcore.core.io import atomic_write_path, write_atomically

    with atomic_write_path(out) as temporary, temporary.open("wb") as stream:
        np.save(stream, embeddings, allow_pickle=False)
    table = pl.DataFrame({"row": range(len(kept)), "path": [str(path) for path in kept]})
    write_atomically(paths, table.write_csv())


def _encoded(files: list[Path], preprocess: PreprocessConfig, channels: int) -> list[EncodedImage]:
    """Each file as `preprocess` would store it, or its error."""
    from dmlcore.datasets.prepare.catalogue import Catalogue, Item
    from dmlcore.datasets.prepare.encoding import encoder
    from dmlcore.datasets.prepare.image_decoding import pillow_for_threads

    items = [Item("", "", str(path), "") for path in files]
    catalogue = Catalogue(tuple(items), lambda item: Path(item.source).read_bytes(), channels, "", "")
    with pillow_for_threads():
        return list(map(encoder(catalogue, preprocess), items))


def stored_images(encoded: list[EncodedImage], trained: Trained) -> Images:
    """Encoded images in memory behind the face of those on disk."""
    import numpy as np

    from dmlcore.data.images import JpegImages, RawImages

    data = np.frombuffer(b"".join(image.data for image in encoded), dtype=np.uint8)
    if trained.preprocess.encoding == "raw":
        size = trained.preprocess.image_size
        return RawImages(data.reshape(len(encoded), size, size, trained.channels))
    lengths = np.array([len(image.data) for image in encoded], dtype=np.int64)
    return JpegImages(data, np.cumsum(lengths) - lengths, lengths)
