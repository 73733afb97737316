"""`dmlcore evaluate`: the metrics of a user's own embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dmlcore.cli.arrays import EMBEDDINGS, LABELS, read_embeddings, read_labels
from dmlcore.cli.options import check_plot
from dmlcore.core.io import write_atomically
from dmlcore.core.sealed_json import finite


def evaluate(
    embeddings: Annotated[Path, typer.Option(help=f"Embeddings, {EMBEDDINGS}")],
    labels: Annotated[Path, typer.Option(help=f"Labels, {LABELS}")],
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the metrics here as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write utility against threshold here as PNG.")] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Resamples of the classes for the interval of OPIS.")
    ] = 0,
) -> None:
    """Compute the accuracy and threshold consistency of your own embeddings.

    Example: dmlcore evaluate --embeddings test.npy --labels test_labels.npy --json metrics.json --plot utility.png
    """
    from dmlcore.metrics.evaluation import evaluate as compute_metrics

    check_plot(plot)
    evaluation = compute_metrics(read_embeddings(embeddings), read_labels(labels), bootstrap=bootstrap)
    for name, value in evaluation.metrics.items():
        typer.echo(f"{name:36} {value:.6g}")
    if doubled := evaluation.metrics["num_images_under_two_labels"]:
        typer.echo(f"note: {doubled} images are identical to one of another label: remove one label of each")
    if json_path is not None:
        write_atomically(json_path, json.dumps(finite(evaluation.metrics), indent=1) + "\n")
    if plot is not None:
        from dmlcore.metrics.plot import utility_png

        write_atomically(plot, utility_png(evaluation))
