"""Write data/weights/SOURCE-BACKBONE.safetensors: the backbones that this study has trained, without their heads.

`python studies/pretraining/weights.py`, after `dvc repro studies/pretraining/dvc.yaml`. The files are in git.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from dmlcore.core.hashing import file_sha256  # noqa: E402
from dmlcore.records import RecordFolder  # noqa: E402

PREFIX = "backbone.model."
SOURCES = {"glyphs-others": "glyphs", "glyphs-large": "glyphs-large", "omniglot-characters": "omniglot"}
"""Data set -> first part of the name of its weights."""


def main() -> None:
    """Write a file for each trial of the table that has finished."""
    folder = ROOT / "data" / "weights"
    folder.mkdir(exist_ok=True)
    records = RecordFolder(HERE / "state" / "records")
    finished = pl.read_parquet(HERE / "results" / "trials.parquet").filter(status="finished")
    for key in finished["trial_key"]:
        record = records.read(key)
        if record is None:
            sys.exit(f"weights: {key} has no record in state/; run the stage sweep first")
        path = HERE / "state" / "storage" / record.train_key[:16] / "best.safetensors"
        if file_sha256(path) != record.files["best"]:
            sys.exit(f"weights: {path} was changed since trial {key} wrote it; run the stage sweep again")
        state = load_file(path)
        backbone = {name.removeprefix(PREFIX): state[name] for name in state if name.startswith(PREFIX)}
        source = SOURCES[record.labels["dataset"]]
        save_file(backbone, folder / f"{source}-{record.labels['backbone']}.safetensors")


if __name__ == "__main__":
    main()
