"""The page in headless Chromium: no error, hover, filter, sort, keyboard, a narrow screen, a hostile name."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Request, expect, sync_playwright
from playwright.sync_api import Page as Tab

from dmlcore.data.dataset import PreparedDataset
from dmlcore.report.html.page import report_html
from tests.analysis.studies import margins_study
from tests.analysis.synthetic import TCM, rows, study
from tests.report.html.made import stored_study
from tests.report.html.test_page import ATTACKS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NOT_HERE = "Chromium is not installed"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip(NOT_HERE)
    with sync_playwright() as driver:
        # Chromium refuses its sandbox to root, which containers are
        found = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield found
        found.close()


class Opened:
    """A page in a tab, and what went wrong in it."""

    def __init__(self, browser: Browser, html: str, folder: Path, **options: Any) -> None:
        path = folder / "report.html"
        path.write_text(html, encoding="utf-8")
        self.tab: Tab = browser.new_page(**options)
        self.faults: list[str] = []
        self.tab.on("console", self._message)
        self.tab.on("pageerror", lambda error: self.faults.append(str(error)))
        self.tab.on("dialog", self._dialog)
        self.tab.on("request", self._request)
        self.tab.goto(path.as_uri())
        self.tab.wait_for_selector("html[data-ready]", state="attached")

    def _message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(message.text)

    def _dialog(self, dialog: Dialog) -> None:
        self.faults.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def _request(self, request: Request) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.faults.append(request.url)

    def texts(self, selector: str) -> list[str]:
        return self.tab.locator(selector).all_inner_texts()


@pytest.fixture(scope="module")
def html() -> str:
    found = rows(("glyphs", "birds"), ("conv", "vit"), ("ap", "ms"), ("baseline", TCM), (0, 1, 2))
    return report_html(study(found))


@pytest.fixture
def opened(browser: Browser, html: str, tmp_path: Path) -> Iterator[Opened]:
    found = Opened(browser, html, tmp_path)
    yield found
    found.tab.close()
    assert found.faults == []


def test_the_first_screen_shows_the_answer_and_draws_the_plot(opened: Opened) -> None:
    assert "TCM" in opened.tab.locator("h1").inner_text()
    assert opened.tab.locator("table.effects").first.bounding_box()["y"] < 720  # type: ignore[index]
    assert opened.tab.locator("figure.tradeoff").first.locator("path.point").count() >= 8
    assert opened.tab.locator("#utility svg.main-svg").count() >= 6


def test_hover_says_what_a_point_is(opened: Opened) -> None:
    opened.tab.locator("figure.tradeoff").first.locator("g.trace").nth(1).locator("path.point").first.hover(
        force=True
    )
    text = " ".join(opened.tab.locator(".hoverlayer .hovertext").first.locator("text").all_text_contents())
    assert "birds" in text
    assert "OPIS corr." in text
    assert "3 of 3 seeds" in text


def test_a_click_shows_the_numbers_below(opened: Opened) -> None:
    opened.tab.locator("figure.tradeoff").first.locator("g.trace").nth(1).locator("path.point").first.click(
        force=True
    )
    opened.tab.wait_for_selector("#detail:not(:empty)")
    assert "MAP@R" in opened.tab.locator("#detail").inner_text()


def column(opened: Opened, heading: str) -> list[str]:
    """The cells of the comparison table that are shown under a heading."""
    place = opened.texts("#comparisons th").index(heading) + 1
    return opened.texts(f"#comparisons tbody tr:visible td:nth-child({place})")


def test_filters_choose_rows_points_and_panels(opened: Opened) -> None:
    opened.tab.select_option("select[data-filter=dataset]", "glyphs")
    opened.tab.select_option("select[data-filter=loss]", "ap")
    assert opened.tab.locator("figure.tradeoff:visible").count() == 1
    assert set(column(opened, "loss")) == {"ap"}
    assert opened.tab.locator("#trials tbody tr:visible").count() == 12
    assert opened.tab.locator("#shown").inner_text() == "4 of 16 configurations shown"
    assert opened.texts("#utility h3") == ["glyphs, conv, ap", "glyphs, vit, ap"]
    opened.tab.select_option("select[data-filter=metric]", "opis")
    assert set(column(opened, "metric")) == {"OPIS"}
    opened.tab.click("button[type=reset]")
    # by a locator: a function given as text would be an eval, which the page's policy refuses
    expect(opened.tab.locator("#shown")).to_have_text(re.compile("^16 of 16"))
    assert opened.tab.locator("#trials tbody tr:visible").count() == 48


def test_headings_sort_by_number_and_back(opened: Opened) -> None:
    column = opened.texts("#trials th").index("MAP@R") + 1
    cells = f"#trials tbody td:nth-child({column})"
    opened.tab.click(f"#trials th:nth-child({column}) button")
    rising = [float(text) for text in opened.texts(cells)]
    assert rising == sorted(rising)
    assert opened.tab.get_attribute(f"#trials th:nth-child({column})", "aria-sort") == "ascending"
    opened.tab.click(f"#trials th:nth-child({column}) button")
    assert [float(text) for text in opened.texts(cells)] == rising[::-1]


def test_the_keyboard_reaches_filters_and_headings(opened: Opened) -> None:
    reached = []
    for _ in range(12):
        opened.tab.keyboard.press("Tab")
        reached.append(
            opened.tab.evaluate(
                "document.activeElement.tagName + (document.activeElement.dataset.filter||'')"
            )
        )
    assert reached[:5] == ["A", "SELECTdataset", "SELECTbackbone", "SELECTloss", "BUTTON"]
    outline = opened.tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    opened.tab.locator("#comparisons th button").nth(6).focus()
    opened.tab.keyboard.press("Enter")
    assert opened.tab.get_attribute("#comparisons th:nth-child(7)", "aria-sort") == "ascending"


def test_a_phone_needs_no_sideways_scrolling(browser: Browser, html: str, tmp_path: Path) -> None:
    found = Opened(browser, html, tmp_path, viewport={"width": 360, "height": 740})
    assert found.tab.evaluate("document.documentElement.scrollWidth") == 360
    assert found.tab.locator("#comparisons tbody td").first.bounding_box()["width"] > 250  # type: ignore[index]
    found.tab.close()
    assert found.faults == []


def test_a_hostile_name_runs_nothing_and_is_read_as_it_is(browser: Browser, tmp_path: Path) -> None:
    found = Opened(
        browser,
        report_html(study(rows(ATTACKS, ("vit",), ("ap",), ("baseline", *ATTACKS[:1]), (0, 1)))),
        tmp_path,
    )
    for place, attack in enumerate(sorted(ATTACKS)):
        figure = found.tab.locator("figure.tradeoff").nth(place)
        figure.locator("g.trace").nth(1).locator("path.point").first.hover(force=True)
        hovered = "".join(figure.locator(".hovertext text").first.all_text_contents())
        assert attack in hovered
        found.tab.select_option("select[data-filter=dataset]", attack)
        assert found.tab.locator("#trials tbody tr:visible").count() == 4
        found.tab.select_option("select[data-filter=dataset]", "")
    assert found.tab.locator("main script, main img:not(.forest)").count() == 0
    found.tab.close()
    assert found.faults == []


def test_heat_maps_images_and_the_map_are_drawn(
    browser: Browser, tmp_path: Path, small_data: PreparedDataset
) -> None:
    found = Opened(browser, report_html(margins_study()), tmp_path)
    assert found.tab.locator("#heat-maps .heatmaplayer").count() == 8
    found.tab.close()
    made = stored_study(small_data, tmp_path / "storage")
    looked = Opened(browser, report_html(made), tmp_path, color_scheme="dark")
    assert looked.tab.locator("#map path.point").count() >= 48
    assert looked.tab.evaluate("[...document.images].every(image => image.naturalWidth === 16)")
    looked.tab.close()
    assert found.faults + looked.faults == []
