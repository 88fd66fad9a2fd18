"""The page in headless Chromium: sorting, filters, plots, images, colors, keyboard, a narrow window, no request."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.pages import COMMAND, publish_images, publish_readings

from decoderbench.analysis import load_report
from decoderbench.report.html import html_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")),
        reason="needs chromium and chromedriver: apt-get install chromium chromium-driver",
    ),
]

LABELS = [f"{number:03}" for number in range(30)]
DECODERS = ("ash", "birch", "cedar", "elm", "fir", "oak", "yew")
ARGUMENTS = (*("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900"),)
NAMED = {"image", "img", "button", "searchbox", "combobox", "table", "region", "navigation"}
"""The roles that need a name."""

PARTS = "main h1, main h2, main p, main figure, main .card, main dl, main .legend"


def misread(count: int, *, start: int = 0) -> list[str]:
    return [f"{text}x" if start <= place < start + count else text for place, text in enumerate(LABELS)]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of eight rows with two seeds each, and of labels that would run if they could."""
    folder = tmp_path_factory.mktemp("results")
    readings = {name: [misread(number), misread(number + 1)] for number, name in enumerate(DECODERS)}
    readings['"><img src=x onerror=console.error(1)><script>console.error(2)</script>'] = [misread(9), misread(12)]
    publish_readings(folder, readings, LABELS)
    publish_images(folder, [("0", key, "test", key[-3:]) for key in ("test/0", "test/1", "test/2")])
    page = folder / "report.html"
    page.write_text(html_report(load_report(folder), command=COMMAND), encoding="utf-8")
    return page.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = shutil.which("chromium") or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Any, address: str) -> Any:
    """The page, newly opened."""
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(address)
    return browser


def find(page: Any, selector: str) -> list[Any]:
    return list(page.find_elements("css selector", selector))


def press(page: Any, button: Any, *, shift: bool = False) -> None:
    """Press a button wherever it is on the page; a click of the driver needs a page that does not scroll."""
    page.execute_script("arguments[0].dispatchEvent(new MouseEvent('click', {shiftKey: arguments[1]}))", button, shift)


def column(page: Any, number: int) -> list[str]:
    return [
        cell.get_property("textContent").strip()
        for cell in find(page, f"#table-main tbody tr:not([hidden]) td:nth-child({number})")
    ]


def test_page_runs_with_an_empty_console_and_requests_nothing_else(page: Any, address: str) -> None:
    find(page, "#theme")[0].click()
    assert page.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    requested = [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]
    assert [url for url in requested if not url.startswith("data:")] == [address]
    assert find(page, "img[src=x]") == []


def test_press_on_a_header_sorts_by_number_and_again_the_other_way(page: Any) -> None:
    headers = [header.text for header in find(page, "#table-main thead th")]
    place = headers.index("Exact match (%)") + 1
    button = find(page, f"#table-main thead th:nth-child({place}) button")[0]
    button.click()
    values = [float(text.split("[")[0]) for text in column(page, place)]
    assert values == sorted(values)
    assert len(set(values)) > 3
    assert find(page, f"#table-main thead th:nth-child({place})")[0].get_attribute("aria-sort") == "ascending"
    button.click()
    assert [float(text.split("[")[0]) for text in column(page, place)] == values[::-1]
    assert len(find(page, "#table-main th[aria-sort]")) == 1


def test_keyboard_sorts_and_reaches_the_content(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    find(page, "body")[0].send_keys(Keys.TAB)
    assert page.switch_to.active_element.get_attribute("class") == "skip"
    button = find(page, "#table-main thead th:nth-child(1) button")[0]
    page.execute_script("arguments[0].focus()", button)
    button.send_keys(Keys.ENTER)
    button.send_keys(Keys.ENTER)
    assert column(page, 1) == [str(number) for number in range(8, 0, -1)]


def test_filter_hides_the_rows_without_the_words_and_counts_the_rest(page: Any) -> None:
    field = find(page, "#table-main input.filter")[0]
    field.send_keys("Columns CEDAR")
    assert column(page, 1) == ["3"]
    assert find(page, "#table-main output")[0].text == "1 of 8 rows"
    field.clear()
    field.send_keys(" ")
    assert len(column(page, 1)) == 8


def test_legend_hides_a_row_shows_it_alone_and_all_again(page: Any) -> None:
    def hidden() -> set[str]:
        return {mark.get_attribute("data-row") for mark in find(page, "#curves svg.plot g.off")}

    keys = find(page, "#curves button.key")
    press(page, keys[2])
    assert hidden() == {"2"}
    assert keys[2].get_attribute("aria-pressed") == "false"
    press(page, keys[4], shift=True)
    assert hidden() == {str(row) for row in range(8)} - {"4"}
    press(page, find(page, "#curves button.all")[0])
    assert hidden() == set()
    press(page, find(page, "#curves button.all")[0])
    assert len(hidden()) == 8


def test_gallery_shows_images_by_kind_and_by_the_row_that_misread_them(page: Any) -> None:
    from selenium.webdriver.support.ui import Select

    def shown() -> list[Any]:
        return find(page, ".card:not([hidden])")

    everything = len(shown())
    press(page, find(page, "button.kind[data-kind=right]")[0])
    assert 0 < len(shown()) < everything
    assert {card.get_attribute("data-kind") for card in shown()} == {"right"}
    press(page, find(page, "button.kind[data-kind=all]")[0])
    Select(find(page, "select.misread")[0]).select_by_value("2")
    assert 0 < len(shown()) < everything
    assert all("2" in (card.get_attribute("data-wrong") or "").split() for card in shown())
    assert find(page, "#gallery output")[0].text == f"{len(shown())} of {everything} images"
    widths = page.execute_script(
        "return Array.from(document.querySelectorAll('.card img'), (image) => image.naturalWidth)"
    )
    assert widths
    assert all(widths)


def test_colors_follow_the_system_until_they_are_chosen(page: Any) -> None:
    def paper() -> str:
        return str(page.execute_script("return getComputedStyle(document.body).backgroundColor"))

    def set_system(scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    page.execute_script("localStorage.clear()")
    page.refresh()
    set_system("light")
    light = paper()
    set_system("dark")
    dark = paper()
    assert light != dark
    button = find(page, "#theme")[0]
    button.click()
    assert paper() == light
    assert "light" in (button.get_attribute("aria-label") or "")
    assert page.execute_script("return localStorage.getItem('decoderbench-theme')") == "light"
    page.execute_script("localStorage.clear()")
    set_system("light")


def test_page_of_390_pixels_does_not_scroll_sideways(page: Any) -> None:
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.refresh()
    assert page.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [390, 390]
    assert max(part.rect["x"] + part.rect["width"] for part in find(page, PARTS)) <= 391
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_every_plot_and_control_has_a_name_for_screen_readers(page: Any) -> None:
    tree = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    nameless = [
        node["role"]["value"]
        for node in tree
        if not node.get("ignored")
        and node["role"]["value"]
        in {"image", "img", "button", "searchbox", "combobox", "table", "region", "navigation"}
        and not node.get("name", {}).get("value")
    ]
    assert nameless == []


def test_folder_of_the_page_needs_no_other_file(address: str, tmp_path: Path, browser: Any) -> None:
    alone = tmp_path / "alone.html"
    alone.write_bytes(Path(address.removeprefix("file://")).read_bytes())
    browser.get(alone.as_uri())
    assert browser.get_log("browser") == []
    assert (
        "cannot be told apart" in find(browser, "#answer")[0].text or "reads better" in find(browser, "#answer")[0].text
    )
