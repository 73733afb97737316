"""The options of `dmlcore calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dmlcore.cli.arrays import EMBEDDINGS, LABELS, QUERIES

FarTargets = Annotated[
    list[float] | None, typer.Option("--far", help="Target: share of the negative pairs accepted, 0 to 1.")
]
FrrTargets = Annotated[
    list[float] | None, typer.Option("--frr", help="Target: share of the positive pairs rejected, 0 to 1.")
]
Precisions = Annotated[
    list[float] | None,
    typer.Option("--precision", help="Target: share of matches among accepted pairs; needs --prior."),
]
Prior = Annotated[
    float | None, typer.Option(help="Share of the pairs compared in use that are matches, 0 to 1.")
]
CostFalseAccept = Annotated[
    float | None,
    typer.Option(help="Cost of a false accept: least cost a pair; needs --prior and the other cost."),
]
CostFalseReject = Annotated[float | None, typer.Option(help="Cost of a false reject.")]
BestF1 = Annotated[bool, typer.Option(help="Target: the best F1 over the pairs of validation.")]
ModelId = Annotated[str | None, typer.Option("--model", help="Name of the embedding model, for the card.")]
DataDate = Annotated[
    str | None, typer.Option(help="When the data was collected, for the card, as 2026-11-26.")
]
Confidence = Annotated[
    float | None,
    typer.Option(help="Promise the target for classes not seen, with this confidence, such as 0.95."),
]
WorstGroup = Annotated[bool, typer.Option(help="Keep the target for the worst group, by one threshold.")]
PerGroup = Annotated[bool, typer.Option(help="Keep the target for each group, by a threshold a group.")]
FarLimit = Annotated[float | None, typer.Option(help="List the test classes with a FAR above it.")]
FrrLimit = Annotated[float | None, typer.Option(help="List the test classes with an FRR above it.")]
Card = Annotated[Path, typer.Option(help="Write the card here as JSON.")]
Plot = Annotated[Path | None, typer.Option(help="Write the spread over the classes here as PNG.")]
Classes = Annotated[Path | None, typer.Option(help="Write one row per test class here as CSV.")]
IS_QUERY = f"which images are queries; they are compared with the others, the gallery. {QUERIES}"
GALLERY = f"Gallery embeddings in a file of their own, {EMBEDDINGS} The other file then holds the queries."
GROUPS = "camera, demographic or source of each image, [N] integers or names: the same files as labels."
Validation = Annotated[Path | None, typer.Option(help=f"Validation embeddings, {EMBEDDINGS}")]
ValidationLabels = Annotated[Path | None, typer.Option(help=f"Validation labels, {LABELS}")]
ValidationIsQuery = Annotated[Path | None, typer.Option(help=f"Of validation: {IS_QUERY}")]
ValidationGallery = Annotated[Path | None, typer.Option(help=f"Of validation: {GALLERY}")]
ValidationGalleryLabels = Annotated[Path | None, typer.Option(help="Labels of that gallery.")]
Test = Annotated[Path | None, typer.Option(help=f"Test embeddings, {EMBEDDINGS} Without: validation alone.")]
TestLabels = Annotated[Path | None, typer.Option(help=f"Test labels, {LABELS}")]
TestIsQuery = Annotated[Path | None, typer.Option(help=f"Of test: {IS_QUERY}")]
TestGallery = Annotated[Path | None, typer.Option(help=f"Of test: {GALLERY}")]
TestGalleryLabels = Annotated[Path | None, typer.Option(help="Labels of that gallery.")]
ValidationGroups = Annotated[Path | None, typer.Option(help=f"Of validation: {GROUPS}")]
ValidationGalleryGroups = Annotated[Path | None, typer.Option(help="Groups of that gallery.")]
TestGroups = Annotated[Path | None, typer.Option(help=f"Of test: {GROUPS}")]
TestGalleryGroups = Annotated[Path | None, typer.Option(help="Groups of that gallery.")]
PAIRS = "two files of embeddings, whose rows k are a pair, and one of labels, 1 same and 0 different."
Three = tuple[Path, Path, Path] | None
ValidationPairs = Annotated[Three, typer.Option(help=f"Instead of images with labels: {PAIRS}")]
TestPairs = Annotated[Three, typer.Option(help=f"The same for test: {PAIRS}")]
ClassNames = Annotated[
    Path | None,
    typer.Option(help="Text file: line k + 1 is the name of label k of test (without one, validation)."),
]
IgnoreLabel = Annotated[
    str | None, typer.Option(help="Leave out the images of this label, as -1, of all splits.")
]
Trial = Annotated[
    str | None, typer.Option(help="Key of a finished trial of the study, instead of the files.")
]
Device = Annotated[str | None, typer.Option(help="Where the products run: cpu (default), cuda.")]
