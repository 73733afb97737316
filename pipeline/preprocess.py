"""Stage `preprocess@NAME`: raw/NAME -> manifest, packed pixels and summary in prepared/NAME. Runs in data/."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from dmlcore.config import ConfigError, EvaluationConfig, load_datasets
from dmlcore.data.errors import DataError
from dmlcore.data.glyphs import glyph_catalogue
from dmlcore.data.image_folder import folder_catalogue
from dmlcore.data.importers.cars196 import cars196_catalogue
from dmlcore.data.importers.cifar100 import cifar100_catalogue
from dmlcore.data.importers.cub200 import cub200_catalogue
from dmlcore.data.importers.fashion_mnist import fashion_mnist_catalogue
from dmlcore.data.importers.grocery import grocery_catalogue
from dmlcore.data.importers.inaturalist2018 import inaturalist2018_catalogue
from dmlcore.data.importers.inshop import inshop_catalogue
from dmlcore.data.importers.mnist import mnist_catalogue
from dmlcore.data.importers.omniglot import omniglot_catalogue
from dmlcore.data.importers.sop import sop_catalogue
from dmlcore.data.packed import Split
from dmlcore.data.prepare import prepare
from dmlcore.data.raw_pixels import raw_pixel_embeddings
from dmlcore.metrics import evaluate

CATALOGUES = {
    "glyphs": glyph_catalogue,
    "image_folder": folder_catalogue,
    "cub200": cub200_catalogue,
    "cars196": cars196_catalogue,
    "sop": sop_catalogue,
    "inaturalist2018": inaturalist2018_catalogue,
    "inshop": inshop_catalogue,
    "mnist": mnist_catalogue,
    "fashion_mnist": fashion_mnist_catalogue,
    "cifar100": cifar100_catalogue,
    "omniglot": omniglot_catalogue,
    "grocery": grocery_catalogue,
}


def main() -> None:
    """Read the data set's `preprocess` section, write prepared/NAME."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="a data set of params.yaml")
    name = parser.parse_args().name
    dataset = load_datasets(Path("params.yaml")).datasets[name]
    catalogue = CATALOGUES[dataset.kind](Path("raw") / name, dataset.preprocess)
    prepare(
        name,
        catalogue,
        dataset.preprocess,
        Path("prepared") / name,
        raw_pixel_metrics,
        raw=Path("raw") / name,
    )


def raw_pixel_metrics(test: Split) -> Mapping[str, float]:
    """Retrieval and threshold consistency of the test split's raw pixels, under the keys of a trial.

    Where some images are queries, they search the rest.
    """
    settings = EvaluationConfig()
    queries = test.roles == "query"
    evaluation = evaluate(
        raw_pixel_embeddings(test.images),
        test.labels,
        ks=settings.ks,
        far_range=settings.far_range,
        num_thresholds=settings.num_thresholds,
        epsilon=settings.epsilon,
        is_query=queries if queries.any() else None,
    )
    return {f"test/{name}": value for name, value in evaluation.metrics.items()}


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, DataError) as error:
        sys.exit(f"preprocess: {error}")
