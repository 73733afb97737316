"""Does another revision of this repository give the same trials, bit for bit?

`python -m benchmarks.same_bits OLD [NEW]` checks both revisions out into temporary worktrees, runs in each the default
study cut to one trial per backbone (seed 0, multi-similarity + TCM) through the stages' own scripts, and compares all
metrics, every epoch of the curves, and the stored embeddings. A refactoring must not change any of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run both revisions, print one line per trial and quantity, return 1 where any differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old")
    parser.add_argument("new", nargs="?", default="HEAD")
    revisions = vars(parser.parse_args())
    with tempfile.TemporaryDirectory() as folder:
        found = {side: _trials(revision, Path(folder) / side) for side, revision in revisions.items()}
    same = True
    for name, old in found["old"].items():
        for quantity, value in old.items():
            equal = found["new"].get(name, {}).get(quantity) == value
            print(f"{name:10} {quantity:12} {'same' if equal else 'DIFFERENT'}")
            same = same and equal
    return 0 if same else 1


def _trials(revision: str, checkout: Path) -> dict[str, dict[str, Any]]:
    """Backbone -> what its trial gave at a revision."""
    _run(["git", "worktree", "add", "--quiet", "--detach", str(checkout), revision], ROOT)
    try:
        study = checkout / "studies" / "same-bits"
        study.mkdir(parents=True)
        (study / "params.yaml").write_text(yaml.safe_dump(_params(checkout)))
        python, scripts = sys.executable, checkout / "pipeline"
        _run([python, str(scripts / "download.py"), "glyphs"], checkout / "data")
        _run([python, str(scripts / "preprocess.py"), "glyphs"], checkout / "data")
        _run([python, str(scripts / "sweep.py"), str(study)], checkout)
        records = [json.loads(path.read_text()) for path in sorted((study / "state/records").glob("*.json"))]
        return {record["labels"]["backbone"]: _outcome(record, study / "state/storage") for record in records}
    finally:
        _run(["git", "worktree", "remove", "--force", str(checkout)], ROOT)


def _params(checkout: Path) -> dict[str, Any]:
    params: dict[str, Any] = yaml.safe_load((checkout / "params.yaml").read_text())
    sweep = params["sweep"]
    sweep |= {"study": "same-bits", "seeds": [0], "regularizers": [[{"name": "tcm"}]]}
    sweep["losses"] = {"multi_similarity": sweep["losses"]["multi_similarity"]}
    return params


def _outcome(record: dict[str, Any], storage: Path) -> dict[str, Any]:
    folder = storage / record["train_key"][:16]
    stored = {
        f"{split} {name}": (values.shape, values.dtype.str, values.tobytes())
        for split in ("validation", "test")
        for name, values in load_file(folder / f"{split}.safetensors").items()
    }
    return {"metrics": record["metrics"], "curve": record["curve"], "utility": record["utility"]} | stored


def _run(command: list[str], folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(_checkout_of(folder)), "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _checkout_of(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if (parent / "pipeline").is_dir())


if __name__ == "__main__":
    sys.exit(main())
