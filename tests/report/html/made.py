"""A study with stored embeddings and a prepared data set, and a reader of the page made of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from dmlcore.analysis.study import Study
from dmlcore.config.study import AggregateConfig
from dmlcore.data.dataset import PreparedDataset
from tests.analysis.studies import store_test_embeddings
from tests.analysis.synthetic import TCM, dataset_info, rows, table


@dataclass
class Cell:
    text: str = ""
    value: str | None = None
    images: list[str] = field(default_factory=list)


class Page(HTMLParser):
    """What a page holds: the cells of its tables by name, the elements, the JSON."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.tables, self.tags, self.data_text = html, {}, [], ""
        self.heads: dict[str, list[str]] = {}
        self._table, self._cell, self._head, self._json = "", None, False, False
        self.feed(html)

    def handle_starttag(self, tag: str, found: list[tuple[str, str | None]]) -> None:
        names = dict(found)
        self.tags.append((tag, names))
        if tag == "table":
            self._table = names.get("id") or ""
            self.tables[self._table], self.heads[self._table] = [], []
        elif tag == "tr" and self._table:
            self.tables[self._table].append([])
        elif tag == "th" and self._table:
            self._head = True
            self.heads[self._table].append("")
        elif tag == "td" and self._table:
            self._cell = Cell(value=names.get("data-value"))
            self.tables[self._table][-1].append(self._cell)
        elif tag == "img" and self._cell is not None:
            self._cell.images.append(names["src"] or "")
        self._json = tag == "script" and names.get("id") == "data"

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._cell = None
        elif tag == "th":
            self._head = False
        elif tag == "table":
            self._table = ""

    def handle_data(self, data: str) -> None:
        if self._json:
            self.data_text += data
        elif self._cell is not None:
            self._cell.text = f"{self._cell.text} {data.strip()}".strip()
        elif self._head:
            self.heads[self._table][-1] += data.strip()

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.data_text)

    def table(self, name: str) -> list[dict[str, Cell]]:
        """Heading -> cell, one dict a row."""
        return [dict(zip(self.heads[name], row, strict=True)) for row in self.tables[name] if row]


def stored_study(data: PreparedDataset, storage: Path, **tensors: Any) -> Study:
    """Baseline and TCM on the test split of `data`, two seeds; `storage` has the embeddings of one of two losses."""
    split, random, found = data.split("test"), np.random.default_rng(5), []
    for row in rows(("small",), ("resnet",), ("smooth_ap", "supcon"), ("baseline", TCM), (0, 1)):
        train = hashlib.sha256(row["trial_key"].encode()).hexdigest()[:16]
        found.append(row | {"trial_key": f"{train}-7488e813"})
        if row["loss"] == "smooth_ap":
            centres = np.random.default_rng(1).normal(size=(len(split.class_names), 8))
            points = centres[split.labels] + random.normal(size=(len(split.labels), 8))
            stored = {"embeddings": points.astype(np.float32), "labels": split.labels, "index": split.index}
            store_test_embeddings(storage, train, stored | tensors)
    described = dataset_info() | {"data_hash": data.data_hash}
    return Study(
        table(found),
        {"small": described},
        AggregateConfig(),
        storage,
        data.folder.parent,
        storage / "records",
    )


def with_link(study: Study, link: str) -> Study:
    return replace(study, config=AggregateConfig.model_validate({"run_link": link}))
