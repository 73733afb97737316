"""Trained models in MLflow: loadable by `mlflow.pyfunc.load_model`, with nothing in them that is pickled.

A model is attached to the run of its trial and logged once. What is here raises, except `log_best`.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dmlcore.config.base import parse
from dmlcore.config.trial import TrialConfig
from dmlcore.core.errors import without_passwords
from dmlcore.core.hashing import file_sha256
from dmlcore.data.dataset import PreparedDataset
from dmlcore.records import CURVE, TrialRecord
from dmlcore.tracking.runs import Runs
from dmlcore.training.load import store_of, trained_embedder
from dmlcore.training.loader import input_pipeline
from dmlcore.training.preparation import preparation_of
from dmlcore.training.store import TrialStore

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

logger = logging.getLogger(__name__)
PACKAGE = Path(__file__).resolve().parents[1]
REQUIREMENTS = (
    "filelock", "mlflow", "numba", "numpy", "pillow", "polars", "pydantic", "pyyaml", "safetensors", "scipy", "timm",
    "torch", "torchvision",
)  # fmt: skip
"""Packages that the copy of dmlcore inside a model imports when it embeds."""
DATA_FACTS = ("name", "data_hash", "licence", "image_size", "encoding")
CARD_TAG = "threshold_card_sha256"
EXAMPLES = 2


def best_trials(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Choose of each data set the finished trial with the highest validation MAP@R, of equal ones the lowest key."""
    best: dict[str, tuple[float, TrialRecord]] = {}
    for record in sorted(records, key=lambda record: record.trial_key):
        score = record.metrics.get(CURVE) if record.status == "finished" else None
        dataset = record.config["dataset"]
        if score is not None and (dataset not in best or score > best[dataset][0]):
            best[dataset] = (score, record)
    return [record for _, record in best.values()]


def log_best(runs: Runs, records: Iterable[TrialRecord], study: Path, prepared: Path) -> list[str]:
    """Log the models of `best_trials` that are not logged yet; one that cannot be logged is a warning.

    Args:
        runs: of the study.
        records: of the study's trials.
        study: its folder, absolute.
        prepared: the folder of prepared data sets.

    Returns:
        The names of the trials whose model was logged now.
    """
    logged = []
    for record in best_trials(records):
        try:
            found = find_model(runs, record)
            if found is not None:
                link_to_run(runs, record, found)
            else:
                log_model(runs, record, store_of(study, record), prepared)
                logged.append(record.name)
        except Exception as error:
            said = without_passwords(str(error))[:300]
            logger.warning(
                "the model of %s was not logged to MLflow: %s; run `dmlcore publish`", record.name, said
            )
    return logged


def find_model(runs: Runs, record: TrialRecord, card: Path | None = None) -> LoggedModel | None:
    """Find the logged model of a trial, with that card of a threshold if one is given; None where there is none."""
    run = runs.find(record.trial_key)
    found = [] if run is None else _models_of(runs, run.info.run_id)
    # A model whose upload was cut short never becomes READY: it is logged again.
    ready = (model for model in found if str(model.status) == "READY")
    wanted = file_sha256(card) if card else None
    return next((model for model in ready if wanted in (None, model.tags.get(CARD_TAG))), None)


def _models_of(runs: Runs, run_id: str) -> list[LoggedModel]:
    query = f"source_run_id = '{run_id}'"
    return list(runs.client.search_logged_models([runs.experiment_id], filter_string=query))


def log_model(
    runs: Runs, record: TrialRecord, store: TrialStore, prepared: Path, card: Path | None = None
) -> LoggedModel:
    """Log the model of a finished trial to the trial's run.

    Args:
        runs: of the study.
        record: of the trial.
        store: its files.
        prepared: the folder of prepared data sets.
        card: of `dmlcore calibrate`, checked: it goes along as `threshold.json`, the threshold in the metadata too.

    Raises:
        ValueError: the data set is not prepared, or not with the settings of data/params.yaml.
    """
    if runs.find(record.trial_key) is None:
        runs.complete(record, record.name)
    run = runs.find(record.trial_key)
    assert run is not None
    for unfinished in _models_of(runs, run.info.run_id):  # by a process that was killed
        if str(unfinished.status) != "READY":
            runs.client.delete_logged_model(unfinished.model_id)
    model = runs.client.create_logged_model(
        run.info.experiment_id,
        "embedder",
        source_run_id=run.info.run_id,
        tags={name: str(value) for name, value in record.labels.items()}
        | {"trial_key": record.trial_key}
        | ({CARD_TAG: file_sha256(card)} if card else {}),
        params=run.data.params,
    )
    try:
        with tempfile.TemporaryDirectory(prefix="dmlcore-model-") as folder:
            _write(model, record, store, prepared, Path(folder) / "model", card)
            runs.client.log_model_artifacts(model.model_id, f"{folder}/model")
    except Exception:
        runs.client.finalize_logged_model(model.model_id, "FAILED")
        raise
    model = runs.client.finalize_logged_model(model.model_id, "READY")
    link_to_run(runs, record, model)
    return model


def link_to_run(runs: Runs, record: TrialRecord, model: LoggedModel) -> None:
    """List a model that is READY among the outputs of its run, unless it is there.

    After the model is READY: an output cannot be taken back, and a model that is not READY is replaced.
    """
    from mlflow.entities import LoggedModelOutput

    found = runs.find(record.trial_key)
    assert found is not None
    run = runs.client.get_run(found.info.run_id)  # a search may leave the outputs out
    outputs = run.outputs.model_outputs if run.outputs else ()
    if model.model_id not in {output.model_id for output in outputs}:
        output = LoggedModelOutput(model.model_id, step=len(record.curve))
        runs.client.log_outputs(run.info.run_id, [output])


def register(runs: Runs, model: LoggedModel, name: str) -> int:
    """Make `model` a version of the registered model `name`, creating the latter; return the number of the version."""
    client = runs.client
    for earlier in client.search_model_versions(f"name = '{name}'"):
        if earlier.source == model.artifact_location:
            return int(earlier.version)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    created = client.create_model_version(
        name, model.artifact_location, run_id=model.source_run_id, model_id=model.model_id
    )
    return int(created.version)


def _write(
    model: LoggedModel,
    record: TrialRecord,
    store: TrialStore,
    prepared: Path,
    folder: Path,
    card: Path | None,
) -> None:
    """Write the model as files: MLmodel, code, weights.safetensors, the trial's config, an input example, the card."""
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    config = parse(TrialConfig, record.config, f"trial {record.trial_key}")
    data = PreparedDataset.open(prepared / config.dataset)
    channels = int(data.summary["channels"])
    example = input_pipeline(data.split("test"), config).evaluation_batch(np.arange(EXAMPLES)).numpy()
    scratch = TrialStore(folder.parent)
    scratch.save("weights", trained_embedder(config, store, channels=channels).state_dict())
    save_model(
        folder,
        mlflow_model=Model(run_id=model.source_run_id, model_id=model.model_id, model_uuid=model.model_id),
        python_model=str(PACKAGE / "tracking" / "model_code.py"),
        code_paths=[str(PACKAGE)],
        artifacts={"weights": str(scratch.path("weights"))} | _card_file(card, folder.parent),
        model_config={"trial": record.config, "channels": channels},
        # Without a signature and requirements MLflow would load and run the model here to infer them.
        signature=_signature(example, config.model.embedding_dim),
        input_example=example,
        pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
        metadata={"trial_key": record.trial_key}
        | {name: data.summary[name] for name in DATA_FACTS}
        | {"preprocessing": preparation_of(config, prepared / config.dataset).model_dump(mode="json")}
        | ({"threshold": json.loads(card.read_bytes())["threshold"]} if card else {}),
    )


def _card_file(card: Path | None, scratch: Path) -> dict[str, str]:
    """Copy a card to the name that it has in the model; return it as an artifact."""
    if card is None:
        return {}
    shutil.copyfile(card, scratch / "threshold.json")
    return {"threshold": str(scratch / "threshold.json")}


def _signature(example: NDArray[np.uint8], width: int) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    images = TensorSpec(np.dtype(np.uint8), (-1, *example.shape[1:]))
    embeddings = TensorSpec(np.dtype(np.float32), (-1, width))
    return ModelSignature(Schema([images]), Schema([embeddings]))
