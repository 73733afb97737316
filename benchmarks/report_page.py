"""The page of a study of 24 and of 1,000 trials: its size, and how long headless Chromium takes for it.

python -m benchmarks.report_page [--trials 24 1000] [--repeats 3] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, sync_playwright
from safetensors.numpy import save_file

from dmlcore.analysis.study import Study
from dmlcore.config.data import PreprocessConfig, SplitConfig
from dmlcore.config.study import AggregateConfig
from dmlcore.data.dataset import PreparedDataset
from dmlcore.datasets.prepare.build import prepare
from dmlcore.report.html.page import report_html
from tests.analysis.synthetic import VARIANTS, dataset_info, rows, table
from tests.small import SIDE, small_catalogue

GRIDS = {24: (1, 2, 2, 3), 1000: (4, 5, 5, 5)}
"""Trials -> data sets, backbones, losses, seeds, each without and with TCM."""
LIMITS = {"MB": 25.0, "ready s": 5.0, "filter s": 1.0, "sort s": 1.0}
CLASSES, IMAGES, WIDTH = 400, 8, 64
CHANGE = """async ([selector, value]) => {
  const element = document.querySelector(selector), start = performance.now();
  if (value === null) element.click();
  else { element.value = value; element.dispatchEvent(new Event("change", { bubbles: true })); }
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return (performance.now() - start) / 1000;
}"""
"""An input, and seconds until the browser has drawn what follows from it."""


def synthetic_data(folder: Path) -> PreparedDataset:
    """400 classes of 8 grey images, half of them in the test split."""
    config = PreprocessConfig(image_size=SIDE, split=SplitConfig(test_share=0.5, validation_share=0.1))
    prepare("data0", small_catalogue(CLASSES, IMAGES), config, folder / "data0")
    return PreparedDataset.open(folder / "data0")


def synthetic_study(trials: int, data: PreparedDataset, storage: Path) -> Study:
    """A study of so many finished trials; embeddings are stored of the first cell's first pair."""
    counts = zip(("data", "backbone", "loss"), GRIDS[trials], strict=False)
    names = [tuple(f"{kind}{i}" for i in range(count)) for kind, count in counts]
    found = [
        row | {"trial_key": f"{hashlib.sha256(row['trial_key'].encode()).hexdigest()[:16]}-7488e813"}
        for row in rows(*names, VARIANTS, range(GRIDS[trials][3]))
    ]
    for row in found:
        if (row["dataset"], row["backbone"], row["loss"], row["seed"]) == ("data0", "backbone0", "loss0", 0):
            store(row, data, storage)
    described = {name: dataset_info() | {"data_hash": data.data_hash} for name in names[0]}
    return Study(table(found), described, AggregateConfig(), storage, data.folder.parent)


def store(row: dict[str, Any], data: PreparedDataset, storage: Path) -> None:
    """Test embeddings of a trial: random centres, images about them."""
    split, random = data.split("test"), np.random.default_rng(row["variant"] == "baseline")
    centres = random.normal(size=(len(split.class_names), WIDTH))
    points = centres[split.labels] + random.normal(size=(len(split.labels), WIDTH))
    folder = storage / row["trial_key"].split("-")[0]
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"embeddings": points.astype(np.float32), "labels": split.labels, "index": split.index}
    save_file(tensors, folder / "test.safetensors")


def browser_seconds(browser: Browser, page: Path) -> dict[str, float]:
    """Seconds to the finished page, of a filter change, and of a sort of the table of trials."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    started = time.perf_counter()
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-ready]", state="attached", timeout=120_000)
    found = {"ready s": time.perf_counter() - started}
    filters = [tab.evaluate(CHANGE, ["select[data-filter=loss]", value]) for value in ("loss1", "", "loss0")]
    tab.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    heading = "#trials th:nth-child(6) button"
    sorts = [tab.evaluate(CHANGE, [heading, None]) for _ in range(2)]
    heap = tab.evaluate("performance.memory.usedJSHeapSize / 2 ** 20")
    tab.close()
    return found | {"filter s": max(filters), "sort s": max(sorts), "heap MiB": heap}


def measured(browser: Browser, trials: int, repeats: int, folder: Path) -> dict[str, float]:
    """Medians over `repeats` fresh tabs."""
    data = synthetic_data(folder / "prepared")
    started = time.perf_counter()
    html = report_html(synthetic_study(trials, data, folder / "storage"))
    made = time.perf_counter() - started
    page = folder / "report.html"
    page.write_text(html, encoding="utf-8")
    runs = [browser_seconds(browser, page) for _ in range(repeats)]
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return {"written s": made, "MB": page.stat().st_size / 1e6, **medians}


def main() -> None:
    """Print a line a size; exit with 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, nargs="+", choices=GRIDS, default=[24, 1000])
    parser.add_argument("--keep", type=Path, help="folder to leave the pages in, as report-TRIALS.html")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("skipped: needs Chromium (apt-get install chromium)")
        return
    over = 0
    with sync_playwright() as driver:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=chromium, args=options)
        for trials in arguments.trials:
            with tempfile.TemporaryDirectory(prefix="report-page-") as folder:
                found = measured(browser, trials, arguments.repeats, Path(folder))
                if arguments.keep:
                    shutil.copy(Path(folder) / "report.html", arguments.keep / f"report-{trials}.html")
            over += sum(found[name] > limit for name, limit in LIMITS.items())
            print(f"{trials:5} trials: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()))
        browser.close()
    print("limits: " + ", ".join(f"{name} {limit:g}" for name, limit in LIMITS.items()))
    sys.exit(1 if over else 0)


if __name__ == "__main__":
    main()
