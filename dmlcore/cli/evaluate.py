"""`dmlcore evaluate`: the metrics of a user's own embeddings."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmlcore.cli.arrays import (
    EMBEDDINGS,
    GROUPS,
    LABELS,
    QUERIES,
    WHOLE,
    read_embeddings,
    read_groups,
    read_is_query,
    read_labels,
)
from dmlcore.cli.options import check_plot
from dmlcore.core.io import write_atomically
from dmlcore.core.sealed_json import finite

if TYPE_CHECKING:
    from dmlcore.metrics.evaluation import Evaluation
    from dmlcore.metrics.inputs import Array

UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
NOTES = {
    "num_images_under_two_labels": "images are identical to one of another label: remove one label of each",
    "num_queries_positive_in_own_group_only": "queries have all images of their class in their own group: left out",
}

Range = tuple[float, float] | None


@dataclass(frozen=True)
class Images:
    """Files of embeddings, labels and groups of the same images; None where one was not given."""

    embeddings: Path | None
    labels: Path | None
    groups: Path | None


def evaluate(
    embeddings: Annotated[Path, typer.Option(help=f"Embeddings, {EMBEDDINGS}")],
    labels: Annotated[Path, typer.Option(help=f"Labels, {LABELS}")],
    is_query: Annotated[
        Path | None, typer.Option(help=f"Which images are queries; the others are the gallery. {QUERIES}")
    ] = None,
    gallery: Annotated[
        Path | None, typer.Option(help="Embeddings of a gallery; --embeddings are the queries then.")
    ] = None,
    gallery_labels: Annotated[Path | None, typer.Option(help="Labels of the gallery.")] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            help=f"Camera or encounter of each image: two of one label and group are no pair. {GROUPS}"
        ),
    ] = None,
    gallery_groups: Annotated[Path | None, typer.Option(help="Groups of the gallery.")] = None,
    ignore_label: Annotated[
        str | None, typer.Option(help="Leave out the images of this label, as -1.")
    ] = None,
    ks: Annotated[str, typer.Option(help="The k of recall_at_k, separated by commas.")] = "1,2,4,8",
    far_range: Annotated[
        tuple[float, float], typer.Option(help="False-accept rates that bound the thresholds of OPIS.")
    ] = (0.01, 0.1),
    distance_range: Annotated[
        Range, typer.Option(help="Distances that bound them, instead.", show_default=False)
    ] = None,
    num_thresholds: Annotated[int, typer.Option(help="Thresholds in that range.")] = 101,
    epsilon: Annotated[float, typer.Option(help="Share of best and of worst classes of epsilon_opis.")] = 0.1,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Resamples of the classes for the interval of OPIS.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resamples.")] = 0,
    memory: Annotated[str, typer.Option(help="Bound on the working memory: bytes, or as 500MiB.")] = "1GiB",
    device: Annotated[str, typer.Option(help="Where the products run: cpu, cuda, cuda:1.")] = "cpu",
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the metrics here as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write utility against threshold here as PNG.")] = None,
) -> None:
    """Compute the accuracy and threshold consistency of your own embeddings.

    Example: dmlcore evaluate --embeddings test.npy --labels test_labels.npy --json metrics.json --plot utility.png

    Re-identification: dmlcore evaluate --embeddings query.npy --labels query_ids.txt --groups query_cameras.txt
    --gallery gallery.npy --gallery-labels gallery_ids.txt --gallery-groups gallery_cameras.txt --ignore-label -1
    """
    from dmlcore.metrics.evaluation import evaluate as compute_metrics

    check_plot(plot)
    settings: dict[str, Any] = {
        "ks": parse_ks(ks),
        "far_range": far_range,
        "distance_range": distance_range,
        "num_thresholds": num_thresholds,
        "epsilon": epsilon,
        "bootstrap": bootstrap,
        "seed": seed,
        "memory_bytes": parse_bytes(memory),
        "device": device,
    }
    images, searched = Images(embeddings, labels, groups), Images(gallery, gallery_labels, gallery_groups)
    found = compute_metrics(**_inputs(images, searched, is_query, ignore_label), **settings)
    _write(found, json_path, plot)


def _write(evaluation: Evaluation, json_path: Path | None, plot: Path | None) -> None:

    for name, value in evaluation.metrics.items():
        typer.echo(f"{name:38} {value:.6g}")
    for name, note in NOTES.items():
        if number := evaluation.metrics.get(name):
            typer.echo(f"note: {number} {note}")
    if json_path is not None:
        write_atomically(json_path, json.dumps(finite(evaluation.metrics), indent=1) + "\n")
    if plot is not None:
        from dmlcore.metrics.plot import utility_png

        write_atomically(plot, utility_png(evaluation))


def _inputs(images: Images, gallery: Images, is_query: Path | None, ignored: str | None) -> dict[str, Any]:
    """Read all files into arguments of `dmlcore.metrics.evaluate`."""
    _check_gallery(images, gallery, is_query)
    found: dict[str, Any] = {
        "embeddings": read_embeddings(_given(images.embeddings)),
        "labels": read_labels(_given(images.labels)),
        "groups": read_groups(images.groups) if images.groups else None,
        "is_query": read_is_query(is_query) if is_query else None,
    }
    if gallery.embeddings:
        found |= _with_gallery(found, gallery)
    return found | {"ignore_label": _label(ignored, found["labels"])}


def _given(path: Path | None) -> Path:
    assert path is not None
    return path


def _check_gallery(images: Images, gallery: Images, is_query: Path | None) -> None:
    if bool(gallery.embeddings) != bool(gallery.labels):
        raise ValueError("--gallery and --gallery-labels belong together; give both or neither")
    if gallery.embeddings and is_query:
        raise ValueError("give --is-query, or --gallery with --gallery-labels, not both")
    if bool(gallery.groups) != bool(gallery.embeddings and images.groups):
        raise ValueError(
            "--gallery-groups goes with --gallery and --groups; give the groups of both or of neither"
        )


def _with_gallery(queries: dict[str, Any], gallery: Images) -> dict[str, Any]:
    import numpy as np
    import torch

    from dmlcore.metrics.arrays import as_embeddings

    parts = as_embeddings(queries["embeddings"]), as_embeddings(read_embeddings(_given(gallery.embeddings)))
    if any(part.ndim != 2 for part in parts) or parts[0].shape[1] != parts[1].shape[1]:
        shapes = " and ".join(str(list(part.shape)) for part in parts)
        raise ValueError(
            f"queries and gallery must be [N, D] of one width D, got {shapes}; embed both with one model"
        )
    labels = _joined("labels", queries["labels"], read_labels(_given(gallery.labels)), parts)
    groups = gallery.groups and _joined("groups", queries["groups"], read_groups(gallery.groups), parts)
    is_query = np.arange(len(labels)) < len(parts[0])
    return {"embeddings": torch.cat(parts), "labels": labels, "groups": groups, "is_query": is_query}


def _joined(name: str, queries: Array, gallery: Array, embeddings: tuple[Array, Array]) -> Array:
    """Join the labels of queries and gallery; NumPy would turn integers into texts without a word."""
    import numpy as np

    from dmlcore.metrics.arrays import check_labels

    parts = [check_labels(part, name) for part in (queries, gallery)]
    for side, part, rows in zip(("queries", "gallery"), parts, embeddings, strict=True):
        if part.shape != (len(rows),):
            raise ValueError(
                f"{name} of the {side} must be [{len(rows)}], one for each embedding, got {part.shape}"
            )
    if len({part.dtype.kind in "SU" for part in parts}) > 1:
        raise ValueError(
            f"{name} of queries and gallery must both be integers or both be names; write them alike"
        )
    return np.concatenate(parts)


def _label(text: str | None, labels: Array) -> int | str | None:
    from dmlcore.metrics.arrays import check_labels

    if text is None or check_labels(labels).dtype.kind in "SU" or not WHOLE.fullmatch(text):
        return text
    return int(text)


def parse_ks(text: str) -> tuple[int, ...]:
    """Parse `1,2,4,8`.

    Raises:
        ValueError: it is something else.
    """
    if not re.fullmatch(r" *[0-9]{1,9} *(, *[0-9]{1,9} *)*", text):
        raise ValueError(f"--ks must be whole numbers separated by commas, as 1,10,100, got {text!r:.80}")
    return tuple(map(int, text.split(",")))


def parse_bytes(text: str) -> int:
    """Parse a number of bytes, with or without a unit: `1GiB`.

    Raises:
        ValueError: it is something else.
    """
    found = re.fullmatch(r" *([0-9]{1,18}(?:\.[0-9]{1,9})?) *([A-Za-z]*) *", text)
    if found is None or found[2].upper() not in UNITS:
        raise ValueError(f"--memory must be a number of bytes, as 500MiB or 2GiB, got {text!r:.80}")
    return int(float(found[1]) * UNITS[found[2].upper()])
