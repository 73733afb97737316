"""Every dvc.yaml: a stage lists the code that it runs, no more, no less, in few lines; every study is a valid one."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import pytest
import yaml

from dmlcore.config.data import KINDS, DatasetConfig, load_datasets
from dmlcore.config.study import load_study
from dmlcore.sweep.grid import expand
from tests.stages import FILES, ROOT, Stage, closure, stages

STUDIES = [file.parent for file in FILES if file.parent != ROOT / "data"]
MOST_CODE_LINES, MOST_LINES = 12, 240
"""Of all stages together: a study has some 25, its data, 11 of code for a sweep and 10 for aggregate, since DVC cannot
template a list. There are nine studies with the default one, and the stages of data/dvc.yaml."""
CASES = [(stage, kind) for stage in stages() for kind in (KINDS if stage.name == "preprocess" else ("",))]


def code_of(stage: Stage, kind: str) -> set[Path]:
    # The importer is found by its name, so no import statement leads to it.
    importer = [ROOT / f"dmlcore/datasets/importers/{kind}.py"] if kind else []
    return closure(stage.script, *importer)


@pytest.mark.parametrize(("stage", "kind"), CASES, ids=str)
def test_a_stage_lists_the_code_that_it_runs(stage, kind):
    deps, used = stage.code_deps(kind), code_of(stage, kind)
    unlisted = [path for path in used if not any(path.is_relative_to(dep) for dep in deps)]
    assert [path for path in unlisted if not changes_no_result(path)] == []
    unread = [dep for dep in deps if not any(path.is_relative_to(dep) for path in used)]
    assert unread == []


def changes_no_result(path: Path) -> bool:
    """A package on the way to a module is imported too: without code, or with the check of its extra alone, it
    changes nothing. Nor do the extras, without which nothing starts, and the names that the root hands on.
    """
    if path in (ROOT / "dmlcore/__init__.py", ROOT / "dmlcore/extras.py"):
        return True
    lines = [
        node for node in ast.parse(path.read_text(encoding="utf-8")).body if not isinstance(node, ast.Expr)
    ]
    code = [node for node in lines if getattr(node, "module", None) != "dmlcore.extras"]
    return path.name == "__init__.py" and not code


@pytest.mark.parametrize("stage", stages(), ids=str)
def test_a_stage_lists_its_code_in_few_lines(stage):
    assert len(stage.code_deps("mnist")) <= MOST_CODE_LINES
    assert len(set(stage.deps)) == len(stage.deps)


def test_all_stages_together_list_few_lines():
    assert sum(len(stage.deps) for stage in stages()) <= MOST_LINES


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_a_study_lists_the_data_that_it_trains_on(study):
    sweep = load_study(study / "params.yaml").sweep
    deps = yaml.safe_load((study / "dvc.yaml").read_text())["stages"]["sweep"]["deps"]
    prepared = {Path(dep).name for dep in deps if "data/prepared" in dep}
    assert prepared == set(sweep.datasets)
    assert expand(sweep)


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_no_weights_have_seen_a_class_of_validation_or_test(study):
    """They come from other images, or from the training classes of the data set itself."""
    datasets = load_datasets(ROOT / "data/params.yaml").datasets
    learned_from = {name: source for source, name in weights_sources().items()}
    for cell in expand(load_study(study / "params.yaml").sweep):
        weights = Path(cell.config.model.backbone.weights or "")
        if weights.parent == Path("data/weights"):
            source, dataset = learned_from[weights.stem.rpartition("-")[0]], datasets[cell.config.dataset]
            own = source == cell.config.dataset and dataset.preprocess.split.protocol == "disjoint"
            assert own or not share_images(datasets[source], dataset), cell.name


def weights_sources() -> dict[str, str]:
    found = runpy.run_path(str(ROOT / "studies/pretraining/weights.py"))["SOURCES"]
    assert set(found) == set(load_study(ROOT / "studies/pretraining/params.yaml").sweep.datasets)
    return found


def share_images(first: DatasetConfig, second: DatasetConfig) -> bool:
    most = first.preprocess.max_faces
    return first.source == second.source and (most is None or second.preprocess.min_faces <= most)


def test_glyphs_large_shares_images_with_what_the_weights_of_glyphs_come_from():
    datasets = load_datasets(ROOT / "data/params.yaml").datasets
    shared = [name for name in datasets if share_images(datasets["glyphs-others"], datasets[name])]
    assert shared == ["glyphs-large", "glyphs-others"]


def test_stages_are_named_as_their_scripts():
    found = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert {name: stage["cmd"] for name, stage in found.items()} == {
        name: f"python pipeline/{name}.py" for name in ("sweep", "aggregate")
    }
