"""The page as a file: the same bytes, no network, nothing that a name can break, its size."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from dmlcore.analysis.study import Study
from dmlcore.config.base import ConfigError, parse
from dmlcore.config.study import AggregateConfig
from dmlcore.records import RecordFolder, TrialRecord
from dmlcore.report.html.charts import plot_text
from dmlcore.report.html.page import report_html, script_json
from tests.analysis.synthetic import TCM, dataset_info, rows, study, table
from tests.report.html.made import Page, with_link

MEBIBYTE = 2**20
ATTACK = "<script>alert(1)</script>"
ATTACKS = (ATTACK, '"><img src=x onerror=alert(1)>', "</script><b>&amp;", "%{x}{{ 7*7 }}", "a' onload='x")


def test_same_trials_same_bytes_whatever_their_order() -> None:
    found = rows(("a",), ("vit",))
    assert report_html(study(found)) == report_html(study(found[::-1]))


def test_no_address_is_loaded_and_no_other_script_runs() -> None:
    page = Page(report_html(study(rows(("a",), ("vit",)))))
    loaded = [
        names.get("src") or names.get("href") for tag, names in page.tags if tag in ("script", "link", "img")
    ]
    assert [address for address in loaded if address] == ["data:,"]
    (policy,) = [names["content"] for tag, names in page.tags if names.get("http-equiv")]
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", page.html, re.DOTALL)
    hashes = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts}
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == hashes
    assert not any(name.startswith("on") for _, names in page.tags for name in names)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_name_is_only_text(attack: str) -> None:
    names = [f"{attack}{i}" for i in range(4)]
    plain = Page(report_html(study(rows(("a", "z"), ("b", "z"), ("c", "z"), ("baseline", "d"), (0, 1)))))
    cells = ((name, "z") for name in names[:3])
    page = Page(report_html(study(rows(*cells, ("baseline", names[3]), (0, 1)))))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    shown = [[row[name].text for name in ("data set", "backbone", "loss")] for row in page.table("trials")]
    assert names[:3] in shown
    assert {point["dataset"] for point in page.data["tradeoff"]["points"]} == {names[0], "z"}


def test_data_cannot_close_its_script_and_comes_back_whole() -> None:
    value = {"name": "</script><!--<script>&\u2028", "numbers": [1.5, None]}
    text = script_json(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value
    assert plot_text(ATTACK) == "&lt;script&gt;alert(1)&lt;/script&gt;"


def test_runs_are_linked_only_where_an_address_is_given() -> None:
    found = study(rows(("a",), ("vit",), ("ap",), ("baseline", TCM), (0,)))
    assert not any(
        tag == "a" and "http" in (names["href"] or "") for tag, names in Page(report_html(found)).tags
    )
    page = Page(report_html(with_link(found, "http://runs.example/?key={trial_key}")))
    links = {names["href"] for tag, names in page.tags if tag == "a" and "http" in (names["href"] or "")}
    assert links == {f"http://runs.example/?key={key}" for key in found.trials["trial_key"]}
    assert page.data["tradeoff"]["points"][0]["runs"][0][0] == "seed 0"
    with pytest.raises(ConfigError, match="run_link"):
        parse(AggregateConfig, {"run_link": "javascript:alert(1)"}, "here")


def test_the_environment_names_versions_but_no_host(tmp_path: Path) -> None:
    found = rows(("a",), ("vit",), ("ap",), ("baseline",), (0, 1))
    for row, torch in zip(found, ("2.14.0", "2.14.1"), strict=True):
        row["trial_key"] += "-7488e813"
        record = TrialRecord(
            trial_key=row["trial_key"],
            train_key=row["trial_key"][:16] * 4,
            eval_key="7488e813" * 8,
            status="finished",
            config={},
            versions={"torch": torch},
            machine={"host": "secret-host", "processor": "Some CPU", "cpus": 2},
            seconds=70517.25,
        )
        RecordFolder(tmp_path).write(record)
    html = report_html(Study(table(found), {"a": dataset_info()}, records=tmp_path))
    assert "<dt>torch</dt><dd>2.14.0, 2.14.1</dd>" in html
    assert "<dt>processor</dt><dd>Some CPU</dd>" in html
    assert "secret-host" not in html
    assert "70517.25" not in html


def test_the_protocol_and_the_shared_settings_are_there() -> None:
    html = report_html(study(rows(("a",), ("vit",), **{"train.epochs": 8})))
    assert "a: disjoint classes: 884 train" in html
    assert "<dt>train.epochs</dt><dd>8</dd>" in html


def test_a_thousand_trials_stay_below_eight_mebibytes() -> None:
    losses = [f"loss_{i:02}" for i in range(42)]
    found = rows(("a", "b"), ("vit", "conv"), losses, ("baseline", TCM), (0, 1, 2))
    assert len(found) == 1008
    assert len(report_html(study(found)).encode()) < 8 * MEBIBYTE
    assert len(report_html(study(found[:24])).encode()) < 6 * MEBIBYTE
