"""`dmlcore embed`: embeddings of image files with the model of a trained trial.

Shapes: N images, D embedding width.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dmlcore.cli.options import INCOMPLETE, Study, finished_trial, prepared_folder
from dmlcore.core.io import atomic_write_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dmlcore.config.data import PreprocessConfig
    from dmlcore.config.trial import TrialConfig
    from dmlcore.models import Embedder
    from dmlcore.training.store import TrialStore


CHUNK_IMAGES = 512
"""Images decoded at once: bounds memory, and is several batches of the model."""


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
    """Embed images with a trial's model, prepared as its training images were.

    Broken images are named and left out; then the exit code is 1. Of a folder, hidden files are left out, and links are
    followed that stay within it, as when a data set is imported. Both outputs are written, or none.

    Example: dmlcore embed photographs/ --trial 0123abcd --study . --out embeddings.npy --paths paths.csv
    """
    from dmlcore.config.base import parse
    from dmlcore.config.trial import TrialConfig

    written = paths or out.with_suffix(".csv")
    _check_outputs(out, written)
    files = list(image_files(images))
    record, store = finished_trial(study, trial)
    config = parse(TrialConfig, record.config, f"trial {record.trial_key}")
    model = trained_model(config, store, prepared_folder(study) / config.dataset)
    embeddings, kept, broken = _embed_files(files, config, model)
    for error in broken:
        typer.echo(f"dmlcore: left out: {error}", err=True)
    _write(embeddings, kept, out, written)
    typer.echo(f"{len(kept)} of {len(files)} images embedded, {embeddings.shape[1]} wide: {out}, {written}")
    if broken:
        raise typer.Exit(INCOMPLETE)


def image_files(given: list[Path]) -> Iterator[Path]:
    """Yield the given files, and the images below the given folders, by the rules of the import.

    Raises:
        ValueError: a path is neither a file nor a folder with images, or a name or a link breaks a rule.
    """
    from dmlcore.datasets.acquire.walk import SUFFIXES, check_name, files_below, is_image

    for path in given:
        check_name(path)
        if path.is_file():
            yield path
            continue
        below = list(files_below(path, path)) if path.is_dir() else []
        found = [file for file in below if is_image(file)]
        if not found:
            raise ValueError(f"{path} must be an image file or a folder with images ({', '.join(SUFFIXES)})")
        if others := [file for file in below if not is_image(file)]:
            typer.echo(f"dmlcore: {path}: {len(others)} file(s) are no images, first: {others[0]}", err=True)
        yield from found


@dataclass(frozen=True)
class TrainedModel:
    """The model of a trial as it embedded its test images, and how its images were prepared."""

    embedder: Embedder
    preprocess: PreprocessConfig
    channels: int


def trained_model(config: TrialConfig, store: TrialStore, prepared: Path) -> TrainedModel:
    """Rebuild a trial's model from its config and stored weights.

    Raises:
        ValueError: the data set is not prepared, or was prepared with other settings than data/params.yaml has now.
    """
    from dmlcore.data.dataset import PreparedDataset
    from dmlcore.training.load import trained_embedder
    from dmlcore.training.preparation import preprocess_settings

    preprocess = preprocess_settings(config.dataset, prepared)
    channels = int(PreparedDataset.open(prepared).summary["channels"])
    return TrainedModel(trained_embedder(config, store, channels=channels), preprocess, channels)


def _embed_files(
    files: list[Path], config: TrialConfig, model: TrainedModel
) -> tuple[NDArray[np.float32], list[Path], list[str]]:
    """Return embeddings [N, D] of the readable images, their files, and the errors of the others."""
    import torch

    from dmlcore.hub.images import encode, in_memory
    from dmlcore.training.load import embed_images

    parts, kept, broken = [], [], []
    for start in range(0, len(files), CHUNK_IMAGES):
        chunk = files[start : start + CHUNK_IMAGES]
        encoded = encode(chunk, model.preprocess, model.channels)
        kept += [path for path, image in zip(chunk, encoded, strict=True) if not image.error]
        broken += [image.error for image in encoded if image.error]
        for path, image in zip(chunk, encoded, strict=True):
            if image.note:
                typer.echo(f"dmlcore: {path}: {image.note}", err=True)
        if good := [image for image in encoded if not image.error]:
            images = in_memory(good, model.preprocess, model.channels)
            parts.append(embed_images(model.embedder, config, images))
    if not parts:
        raise ValueError(
            f"none of the {len(files)} images can be read, nothing is written; first: {broken[0]}"
        )
    return torch.cat(parts).numpy(), kept, broken


def _check_outputs(out: Path, paths: Path) -> None:
    """Refuse outputs that could not both be written, before anything is computed."""
    if out.resolve() == paths.resolve():
        raise ValueError(
            f"--out and --paths must be two files, got {out} for both; give --paths another name"
        )
    for path in (out, paths):
        if path.is_dir():
            raise ValueError(f"{path} must be a file to write, got a folder; add the name of a file")


def _write(embeddings: NDArray[np.float32], kept: list[Path], out: Path, paths: Path) -> None:
    """Write embeddings and paths: both are on disk before either takes its name."""
    import numpy as np
    import polars as pl

    table = pl.DataFrame({"row": range(len(kept)), "path": [str(path) for path in kept]}).write_csv()
    with atomic_write_path(out) as array, atomic_write_path(paths) as listed:
        with array.open("wb") as stream:
            np.save(stream, embeddings, allow_pickle=False)
            stream.flush()
            os.fsync(stream.fileno())
        listed.write_text(table, encoding="utf-8")
