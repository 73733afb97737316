"""The README shows what results/ holds, and the paths and commands that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from dmlcore.analysis.overview import overview
from dmlcore.analysis.results import read_study
from dmlcore.cli.study import insert_between_markers, markers
from dmlcore.config.base import parse
from dmlcore.config.data import DataParams
from dmlcore.config.study import StudyParams, load_study
from dmlcore.report.text.overview import markdown_overview
from dmlcore.report.text.tables import markdown_table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
STUDIES = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")


def between(text, start, end):
    return text.split(start)[1].split(end)[0].strip()


def test_the_table_is_that_of_the_committed_results():
    study = read_study(ROOT, load_study(ROOT / "params.yaml").aggregate)
    assert between(README, *markers()) == markdown_table(study).strip(), "run `make readme`"


@pytest.mark.parametrize("name", ["losses", "margins", "photos", "public", "toy"])
def test_the_page_of_the_studies_shows_their_committed_results(name):
    folder = ROOT / "studies" / name
    study = read_study(folder, load_study(folder / "params.yaml").aggregate)
    assert between(STUDIES, *markers(name)) == markdown_table(study).strip(), "run `make readme`"


def tallies():
    folders = (ROOT, ROOT / "studies/public", ROOT / "studies/photos")
    params = {folder: load_study(folder / "params.yaml") for folder in folders}
    return overview({p.sweep.study: read_study(folder, p.aggregate) for folder, p in params.items()})


def test_the_table_over_several_studies_is_that_of_their_results():
    assert between(STUDIES, *markers("overview")) == markdown_overview(tallies()), "run `make readme`"


WORDS = {0: "none", 4: "four", 5: "five", 13: "thirteen", 14: "fourteen"}


def test_the_first_screen_counts_what_the_studies_decide():
    text = " ".join(README.split("![")[0].split())
    found = tallies()
    total = found[-1]
    (authors,) = [
        t for t in found if not t.study and t.variant == "tcm(negative_margin=0.5,positive_margin=0.9)"
    ]
    even, less = (WORDS[authors.inconsistency[outcome]] for outcome in ("better", "worse"))
    assert f"more even in {even} of {WORDS[authors.comparisons]} comparisons and less even in {less};" in text
    accuracy, matched = total.accuracy, total.matched
    assert f"in these {total.comparisons}, MAP@R rose in {WORDS[accuracy['better']]}, " in text
    assert f"and fell in {WORDS[accuracy['worse']]}, " in text
    even, less = (WORDS[matched[outcome]] for outcome in ("better", "worse"))
    assert f"more even in {even} of {matched.total()}, less even in {less};" in text


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", STUDIES))))
def test_a_file_that_the_page_of_the_studies_links_is_there(target):
    assert (ROOT / "docs" / target).is_file()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_a_linked_file_is_there(target):
    assert (ROOT / target).is_file()


def test_the_make_targets_it_names_are_there():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= set(targets)


def test_its_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for code in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL):
        exec(compile(code, "README.md", "exec"), {"__name__": "README"})


def yaml_blocks():
    return re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("block", yaml_blocks())
def test_a_yaml_block_fits_the_schema(block):
    values = yaml.safe_load(block)
    if "mine" in values:
        assert parse(DataParams, {"datasets": values}, "README").datasets["mine"].kind == "image_folder"
        return
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert parse(StudyParams, params | {"sweep": params["sweep"] | values}, "README").sweep.backbones


def test_insertion_keeps_the_rest_and_needs_its_markers(tmp_path):
    path = tmp_path / "a.md"
    start, end = markers()
    first, last = markers("toy")
    path.write_text(f"head\n{start}\nold\n{end}\ntail\n{first}\n{last}\n")
    insert_between_markers(path, "new", "another")
    insert_between_markers(path, "pictures", "toy")
    assert path.read_text() == f"head\n{start}\nnew\n{end}\ntail\n{first}\npictures\n{last}\n"
    path.write_text("nothing")
    with pytest.raises(ValueError, match="must hold the line"):
        insert_between_markers(path, "new")
