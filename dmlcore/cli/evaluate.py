"""`dmlcore evaluate`: the metrics of embeddings of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dmlcore.cli.options import read_npy


def evaluate(
    embeddings: Annotated[Path, typer.Option(help="NumPy file [N, D] of floats, one row an image.")],
    labels: Annotated[Path, typer.Option(help="NumPy file [N] of integers, the class of each row.")],
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the metrics here as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write utility against threshold here as PNG.")] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Resamples of the classes for the interval of OPIS.")
    ] = 0,
) -> None:
    """Accuracy and threshold consistency of embeddings of your own.

    Example: dmlcore evaluate --embeddings test.npy --labels test_labels.npy --json metrics.json --plot utility.png
    """
    from dmlcore.core.io import write_atomically
    from dmlcore.metrics.evaluation import evaluate as measure
    from dmlcore.records import finite

    found = measure(read_npy(embeddings), read_npy(labels), bootstrap=bootstrap)
    for key, value in found.metrics.items():
        typer.echo(f"{key:36} {value:.6g}")
    if json_path is not None:
        write_atomically(json_path, json.dumps(finite(found.metrics), indent=1) + "\n")
    if plot is not None:
        from dmlcore.report.figures.utility import save_utility_plot

        save_utility_plot(found, plot)
