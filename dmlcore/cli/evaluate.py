"""`dmlcore evaluate`: the metrics of a user's own embeddings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmlcore.cli.arrays import EMBEDDINGS, GROUPS, LABELS, QUERIES
from dmlcore.cli.options import Memory, check_plot, parse_memory
from dmlcore.cli.split_files import SplitFiles, read_split
from dmlcore.core.io import write_atomically
from dmlcore.core.sealed_json import finite

if TYPE_CHECKING:
    from dmlcore.metrics.evaluation import Evaluation

NOTES = {
    "num_images_under_two_labels": "images are identical to one of another label: remove one label of each",
    "num_queries_positive_in_own_group_only": "queries have all images of their class in their own group: left out",
}

Range = tuple[float, float] | None


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
    memory: Memory = "1GiB",
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
        "memory_bytes": parse_memory(memory),
        "device": device,
    }
    split = read_split(
        SplitFiles(
            *("--embeddings", "--", embeddings, labels, is_query),
            *(gallery, gallery_labels, groups, gallery_groups),
        ),
        ignore_label,
    )
    found = compute_metrics(
        split.embeddings,
        split.labels,
        is_query=split.is_query,
        groups=split.groups,
        ignore_label=split.ignore_label,
        **settings,
    )
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


def parse_ks(text: str) -> tuple[int, ...]:
    """Parse `1,2,4,8`.

    Raises:
        ValueError: it is something else.
    """
    if not re.fullmatch(r" *[0-9]{1,9} *(, *[0-9]{1,9} *)*", text):
        raise ValueError(f"--ks must be whole numbers separated by commas, as 1,10,100, got {text!r:.80}")
    return tuple(map(int, text.split(",")))
