"""The files of the stage: bytes, atomicity, hostile names, empty studies; and the stage itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from dmlcore.analysis.comparisons import comparisons
from dmlcore.analysis.results import read_study
from dmlcore.config.study import AggregateConfig, FigureConfig
from dmlcore.report.outputs import write_results
from pipeline.aggregate import main
from tests.analysis.synthetic import TCM, dataset_info, rows, study, table, unfinished

TABLES = ["baselines.csv", "comparisons.csv", "metrics.json"]
PLOTS = ["convergence.png", "tradeoff.png", "trajectories.png", "utility_curves.png"]
FILES = sorted([*TABLES, *PLOTS, "report.html"])
FILES_OF_OPIS = ["comparisons.csv", "metrics.json", "report.html", "tradeoff.png", "utility_curves.png"]
SMALL = AggregateConfig(figure=FigureConfig(dots_per_inch=50))
HOSTILE = (
    "<script>alert(1)</script>",
    "a$b_\\frac{$d^2",
    "pipe|`tick`*star*",
    "_under",
    "line\nbreak",
    "100% \\alpha",
)


def written(folder: Path, found: list) -> dict[str, bytes]:
    write_results(study(found, SMALL), folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_same_input_same_bytes_whatever_the_order_of_rows(tmp_path: Path) -> None:
    found = rows(backbones=("vit",))
    first, second = written(tmp_path / "a", found), written(tmp_path / "b", found[::-1])
    assert list(first) == FILES
    assert first == second


def test_plots_carry_no_date_or_version(tmp_path: Path) -> None:
    written(tmp_path, rows(backbones=("vit",)))
    for name in PLOTS:
        with Image.open(tmp_path / name) as image:
            assert set(image.info) <= {"dpi"}


def test_a_changed_number_changes_the_files(tmp_path: Path) -> None:
    found = rows(backbones=("vit",))
    first = written(tmp_path / "a", found)
    found[0]["test/opis"] *= 1.5
    second = written(tmp_path / "b", found)
    assert [name for name in FILES if first[name] != second[name]] == FILES_OF_OPIS


def test_files_hold_the_table_to_six_digits(tmp_path: Path) -> None:
    found = rows()
    written(tmp_path, found)
    expected, result = comparisons(study(found)), pl.read_csv(tmp_path / "comparisons.csv")
    assert result.columns == expected.columns
    for name in (name for name in expected.columns if expected[name].dtype == pl.Float64):
        assert result[name].is_null().to_list() == expected[name].is_null().to_list()
        assert result[name].drop_nulls().to_list() == pytest.approx(
            expected[name].drop_nulls().to_list(), rel=1e-5
        )


def test_metrics_json_is_nested_by_configuration(tmp_path: Path) -> None:
    found = rows()
    found[0] = unfinished(found[0])
    metrics = json.loads(written(tmp_path, found)["metrics.json"])
    assert metrics["trials"] == {"failed": 1, "finished": 23}
    place = metrics["datasets"]["glyphs"]["resnet10t"]["recall_at_k"]
    assert set(place) == {"baseline", TCM}
    kept = [row["test/map_at_r"] for row in found[1:3]]
    assert place["baseline"]["test/map_at_r"] == pytest.approx(sum(kept) / 2, rel=1e-5)


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    found = rows(HOSTILE[:1], HOSTILE[1:2], HOSTILE[2:4], ("baseline", HOSTILE[4]), (0, 1), axis=HOSTILE[5])
    result = written(
        tmp_path, found + rows(HOSTILE[:1], HOSTILE[1:2], HOSTILE[2:4], ("baseline",), (0,), axis="b")
    )
    assert pl.read_csv(result["comparisons.csv"])["dataset"].unique().to_list() == [HOSTILE[0]]


def test_a_value_of_an_axis_is_no_formula(tmp_path: Path) -> None:
    found = rows(seeds=(0, 1), axis="=cmd|' /C calc'!A0") + rows(seeds=(0, 1), axis="@b")
    result = written(tmp_path, found)
    assert b"'=cmd|" in result["comparisons.csv"]
    for name in TABLES[:2]:
        cells = pl.read_csv(result[name], infer_schema=False).to_dicts()
        texts = [cell for row in cells for cell in row.values() if cell and not is_number(cell)]
        assert not [text for text in texts if text.startswith(("=", "@", "+", "-"))]


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_a_study_without_a_finished_trial_still_writes_all(tmp_path: Path) -> None:
    assert list(written(tmp_path, [unfinished(row) for row in rows(backbones=("vit",))])) == FILES
    bare = [{k: v for k, v in unfinished(row).items() if v is not None} for row in rows(backbones=("vit",))]
    assert list(written(tmp_path, bare)) == FILES


def test_many_losses_variants_and_data_sets_draw(tmp_path: Path) -> None:
    variants = ("baseline", *(f"tcm(positive_margin={m})" for m in range(6)))
    found = rows(("a",), ("vit",), ("loss",), variants, (0,))
    assert list(written(tmp_path / "variants", found)) == FILES
    found = rows(("a", "b", "c"), ("vit",), [f"loss_{i}" for i in range(9)], ("baseline",), (0,))
    assert list(written(tmp_path / "losses", found)) == FILES


def test_the_stage_reads_a_study_folder_and_writes_its_results(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    table(rows(backbones=("vit",))).write_parquet(tmp_path / "results" / "trials.parquet")
    (tmp_path / "results" / "datasets.json").write_text(json.dumps({"glyphs": dataset_info()}))
    (tmp_path / "params.yaml").write_text(
        "sweep: {study: toy, datasets: [glyphs], backbones: {vit: {}}, losses: {smooth_ap: {}}}\n"
        "aggregate: {confidence: 0.9, figure: {dots_per_inch: 50}}\n"
    )
    main(tmp_path)
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == sorted(
        [*FILES, "trials.parquet", "datasets.json"]
    )
    assert "90 % t-interval" in (tmp_path / "results" / "comparisons.csv").read_text()
    assert read_study(tmp_path, AggregateConfig()).trials.height == 12


def test_the_report_knows_neither_ray_nor_mlflow_nor_torch() -> None:
    code = "import sys, pipeline.aggregate, dmlcore.report.text.tables as _\n"
    code += "print({'ray', 'mlflow', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
