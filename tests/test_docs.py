"""What docs/ says can be done: its Python runs, its YAML fits the schema, its commands, files and figures are there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from dmlcore.analysis.results import read_study
from dmlcore.cli import app
from dmlcore.cli.study import markers
from dmlcore.config.base import parse
from dmlcore.config.data import DataParams, load_datasets
from dmlcore.config.study import StudyParams, load_study
from dmlcore.config.sweep import merge
from dmlcore.report.text.tables import markdown_table
from dmlcore.sweep.grid import expand
from dmlcore.sweep.score_margins import stand_in
from dmlcore.sweep.search.groups import check_groups, search_groups
from dmlcore.sweep.validate import check_cells

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FENCE = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
NEW_STUDY = "studies/mine"
"""The study that a page tells its reader to create."""
NOT_HERE = (NEW_STUDY, "studies/NAME", "dmlcore/STUDY", "dmlcore/default")
"""Patterns, what a reader creates, and names of MLflow experiments."""


class Block(NamedTuple):
    page: str
    language: str
    info: str
    code: str


def blocks_of(page: Path) -> list[Block]:
    name = page.relative_to(DOCS).as_posix()
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [Block(name, language, info.strip(), textwrap.dedent(code)) for _, language, info, code in found]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
YAML = [block for block in BLOCKS if block.language == "yaml"]
LINES = [
    (block.page, line)
    for block in BLOCKS
    if block.language == "bash"
    for line in block.code.replace("\\\n", "").splitlines()
]


def runs(block: Block) -> bool:
    return block.language == "python" or block.info == "run"


@pytest.mark.parametrize("name", sorted({block.page for block in BLOCKS if runs(block)}))
def test_the_code_of_a_page_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": name}
    for block in blocks_of(DOCS / name):
        if block.language == "python":
            exec(compile(block.code, name, "exec"), names)
        elif runs(block):
            done = CliRunner().invoke(app, shlex.split(block.code)[1:])
            assert done.exit_code == 0, done.output


@pytest.mark.parametrize("block", YAML, ids=lambda block: block.page)
def test_a_yaml_block_fits_the_file_that_its_title_names(block):
    (title,) = re.findall(r'^title="(.+)"$', block.info)
    values = yaml.safe_load(block.code)
    if not title.startswith(NEW_STUDY):
        values = merge(yaml.safe_load((ROOT / title).read_text(encoding="utf-8")), values)
    if title == "data/params.yaml":
        assert parse(DataParams, values, block.page).datasets
        return
    sweep = parse(StudyParams, values, block.page).sweep
    cells = expand(sweep)
    check_cells([stand_in(cell) for cell in cells])
    if sweep.search is not None:
        check_groups(search_groups(sweep, sweep.search), check_cells, lambda cell: repr(cell.config))
    assert {cell.config.dataset for cell in cells} == set(values["sweep"]["datasets"])


@pytest.mark.parametrize(("page", "line"), LINES)
def test_a_command_exists(page, line):
    program, *rest = shlex.split(line)
    CHECKS[program](rest)


def check_dmlcore(arguments):
    group = get_command(app)
    with group.make_context("dmlcore", [arguments[0], "--help"], resilient_parsing=True) as context:
        name, command, rest = group.resolve_command(context, arguments)
        if hasattr(command, "commands"):
            name, command, rest = command.resolve_command(context, rest)
        command.make_context(name, rest, parent=context)


def check_make(arguments):
    target, *variables = arguments
    assert target in make_targets()
    for study in [variable.removeprefix("STUDY=") for variable in variables]:
        assert study == "mine" or (ROOT / "studies" / study / "dvc.yaml").is_file()


def check_dvc(arguments):
    stage = re.fullmatch(r"(.+dvc\.yaml):(preprocess|download)@(\w+)", arguments[-1])
    assert arguments[0] == "repro"
    assert stage is not None
    assert (ROOT / stage[1]).is_file()
    assert stage[3] in load_datasets(ROOT / "data" / "params.yaml").datasets


def check_copy(arguments):
    *options, source, target = arguments
    assert options == ["-r"]
    assert (ROOT / source / "dvc.yaml").is_file()
    assert target == NEW_STUDY


def check_removal(arguments):
    assert all(argument.startswith((f"{NEW_STUDY}/", "-")) for argument in arguments)


def check_pip(arguments):
    assert arguments[0] == "install"
    names = re.fullmatch(r"(?:dmlcore|\.)(?:\[([\w,]+)\])?", arguments[1])[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert not names or set(names.split(",")) <= project["optional-dependencies"].keys()


CHECKS = {
    "pip": check_pip,
    "dmlcore": check_dmlcore,
    "make": check_make,
    "dvc": check_dvc,
    "cp": check_copy,
    "rm": check_removal,
}


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def inline(pattern: str) -> set[str]:
    """Find what is in backticks, outside of blocks, and matches."""
    text = "\n".join(FENCE.sub("", page.read_text(encoding="utf-8")) for page in PAGES)
    return {found for code in re.findall(r"`([^`\n]+)`", text) for found in re.findall(pattern, code)}


def test_commands_and_targets_in_the_text_are_there():
    assert inline(r"^dmlcore ([a-z][a-z-]*)") == set(get_command(app).commands)
    assert inline(r"^make ([a-z-]+)") <= make_targets()
    assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in inline(r"-m benchmarks\.(\w+)"))


def test_the_paths_in_the_text_are_there():
    named = inline(r"^(?:dmlcore|tests|studies|benchmarks|pipeline|docs)/[\w./-]+$")
    assert not [path for path in named if not path.startswith(NOT_HERE) and not (ROOT / path).exists()]


def test_the_table_of_the_tutorial_is_that_of_the_committed_results():
    study = read_study(ROOT, load_study(ROOT / "params.yaml").aggregate)
    start, end = markers()
    shown = (DOCS / "tutorial.md").read_text(encoding="utf-8").split(start)[1].split(end)[0].strip()
    assert shown == markdown_table(study).strip(), "run `make readme`"


def test_the_site_builds_without_a_warning_and_loads_nothing_from_a_network(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="?(?:https?:)?//(?!www\.w3)[^>]*', text)
        assert "arithmatex" not in text
    assert "<math" in (tmp_path / "science.html").read_text(encoding="utf-8")
    pages = {page.name: page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html")}
    assert not [name for name, text in pages.items() if "```" in text], "a block that is not drawn as one"


NOTEBOOK = DOCS / "notebook" / "one_threshold.ipynb"
NO_NETWORK = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise AssertionError(f"the notebook opens a connection: {event} {arguments}")
sys.addaudithook(refuse)
"""


def test_the_notebook_runs_without_a_network(tmp_path):
    """All code cells in one process; its output has what the text says of it."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs")], "commit it without outputs"
    code = "\n".join(["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"])
    environment = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"{NO_NETWORK}\n{code}"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    estimate, promise = (float(found) for found in re.findall(r"distance ([0-9.]+):", done.stdout))
    assert promise < estimate, "a promise is stricter"
    assert "one class: True  two classes: False" in done.stdout
    before, after = re.findall(r"shifted: (\[.*?\])", done.stdout)
    assert before == "[]" != after
