"""The report of a real fit in a real browser: what it asks for, what it complains of, whether it fits and sorts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tds2el.cli.main import main

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def report(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a fit to a small scan whose folder has a name that is long and hard to break.

    Not made where there is no browser.
    """
    folder = tmp_path_factory.mktemp("calcite_" + 120 * "x")
    scan = (Path(__file__).parents[1] / "simulate" / "small.par").read_text(encoding="utf-8")
    (folder / "scan.par").write_text(scan, encoding="utf-8")
    assert main(["simulate-scan", str(folder / "scan.par")]) == 0
    options = ["fitSpots=True", "doMinimisation=1", "CGUESS=auto", "scale=held"]
    assert main([str(folder / "scan" / "input.par"), "--quiet", "--set", *options]) == 0
    return folder / "scan" / "report.html"


@pytest.fixture
def page(browser: Any, report: Path) -> Any:
    """The browser with the report open in a window of 1280 × 900."""
    resize(browser, 1280)
    still = {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}  # else a click misses what scrolls
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", still)
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(report.as_uri())
    return browser


def resize(browser: Any, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def requests(browser: Any) -> list[str]:
    """Addresses that the page asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith("data:")]


def overflow(browser: Any) -> list[str]:
    """The elements that reach beyond the page, but for those in a box that scrolls."""
    return list(
        browser.execute_script(
            """
            const page = document.scrollingElement;
            const beyond = [...document.querySelectorAll("body *")].filter(element =>
              element.getBoundingClientRect().right > page.clientWidth + 1 && !element.closest(".scroll, pre"));
            const found = beyond.map(element => element.outerHTML.slice(0, 80));
            return page.scrollWidth > page.clientWidth ? ["the page itself", ...found] : found;
            """
        )
    )


def column(browser: Any, title: str) -> tuple[Any, list[float]]:
    """Heading and values of a column of the table of spots, from top to bottom."""
    heading, values = browser.execute_script(
        """
        const table = document.querySelector("table.sortable");
        const headings = [...table.tHead.rows[0].cells];
        const column = headings.findIndex(heading => heading.textContent === arguments[0]);
        return [headings[column], [...table.tBodies[0].rows].map(row => Number(row.cells[column].dataset.value))];
        """,
        title,
    )
    return heading, [float(value) for value in values]


def test_the_page_asks_for_nothing_and_has_nothing_to_complain_of(page: Any, report: Path) -> None:
    page.execute_script("document.querySelectorAll('details').forEach(element => { element.open = true; })")
    page.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    assert requests(page) == [report.as_uri()]
    assert page.get_log("browser") == []
    broken = "return [...document.images].filter(image => !image.complete || !image.naturalWidth).length"
    assert page.execute_script("return document.images.length") > 8
    assert page.execute_script(broken) == 0


def test_what_the_page_must_not_do_would_be_seen(page: Any, report: Path, tmp_path: Path) -> None:
    """The other tests can fail: an address from outside is refused with a complaint, a wide box is found."""
    worse = report.with_name("worse.html")
    text = report.read_text(encoding="utf-8")
    addition = '<img src="http://localhost:9/a.png" alt=""><div style="width: 3000px">wide</div>'
    worse.write_text(text.replace("</main>", addition + "</main>"), encoding="utf-8")
    page.get(worse.as_uri())
    assert any("Content Security Policy" in entry["message"] for entry in page.get_log("browser"))
    assert len(overflow(page)) >= 2


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("opened", [False, True])
def test_nothing_overflows(page: Any, width: int, opened: bool) -> None:
    resize(page, width)
    if opened:
        page.execute_script("document.querySelectorAll('details').forEach(element => { element.open = true; })")
    assert page.execute_script("return document.scrollingElement.clientWidth") <= width
    assert overflow(page) == []


def test_a_click_on_a_heading_sorts_by_value_up_and_down(page: Any) -> None:
    for title in ("Points", "l", "χ²/dof", "Factor f"):
        _, before = column(page, title)
        assert before not in (sorted(before), sorted(before, reverse=True))
        for state, reverse in (("ascending", False), ("descending", True)):
            heading, _ = column(page, title)
            heading.find_element("tag name", "button").click()
            heading, values = column(page, title)
            assert values == sorted(before, reverse=reverse)
            assert heading.get_attribute("aria-sort") == state
        assert page.execute_script("return document.querySelectorAll('[aria-sort]').length") == 1
    _, spots = column(page, "Spot")
    assert spots != sorted(spots)


def test_the_keyboard_sorts_too(page: Any) -> None:
    heading, before = column(page, "Points")
    button = heading.find_element("tag name", "button")
    page.execute_script("arguments[0].focus()", button)
    button.send_keys("\ue007")  # Enter
    assert column(page, "Points")[1] == sorted(before)


def test_paper_shows_what_is_closed_on_the_screen(page: Any) -> None:
    closed = "return document.querySelectorAll('details:not([open], .screen)').length"
    assert page.execute_script(closed) > 2
    page.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert page.execute_script(closed) == 0
    page.execute_script("dispatchEvent(new Event('afterprint'))")
    assert page.execute_script(closed) > 2
