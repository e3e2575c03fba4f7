"""The page of a comparison in headless Chromium: pictures load, tables sort by click, and no script errs."""

import os
import shutil
from pathlib import Path

import pytest
from hand_written_runs import cost, hand_written, likelihood, quality

from genzoo.evaluation.comparison.entries import read_entries
from genzoo.evaluation.comparison.page import Comparison, write_page

webdriver = pytest.importorskip("selenium.webdriver")
WebDriverWait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,2000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(
        DRIVER, env={**os.environ, "HOME": str(tmp_path_factory.mktemp("home"))}
    )
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    """Three runs seen by one feature extractor, one by another, one not at all."""
    folder = tmp_path_factory.mktemp("page")
    runs = [
        hand_written(folder / "a", "vae", quality(30.0), likelihood(2.5, "LOWER_BOUND"), cost(900.0)),
        hand_written(folder / "b", "gan", quality(20.0), cost(1000.0)),
        hand_written(folder / "c", "pixelcnn", quality(100.0), likelihood(2.0), cost(20.0)),
        hand_written(folder / "d", "pixelcnn", quality(1.0, identity="other"), likelihood(3.0), cost(30.0)),
        hand_written(folder / "<script>throw 1", "flow"),
    ]  # fmt: skip
    write_page(Comparison(read_entries(runs)), folder / "page.html")
    browser.get((folder / "page.html").as_uri())
    return browser


def rows(page):
    """Names of the overview's runs, `-` for a row that begins a group."""
    found = page.find_elements("css selector", "#overview tbody tr")
    return [
        "-" if "group" in (r.get_attribute("class") or "") else r.text.split("\n")[0].split()[0]
        for r in found
    ]


def click(page, title):
    """Clicks a header; gives its aria-sort, the only one of the table."""
    heads = page.find_elements("css selector", "#overview thead th")
    next(h for h in heads if h.text.split("\n")[0] == title).find_element("tag name", "button").click()
    sorts = [h.get_attribute("aria-sort") for h in heads if h.get_attribute("aria-sort")]
    assert len(sorts) == 1
    return sorts[0]


def test_every_picture_is_loaded_and_nothing_fails(page):
    pictures = page.find_elements("tag name", "img")
    assert len(pictures) == 5
    assert all(p.get_property("naturalWidth") > 0 and p.get_property("complete") for p in pictures)
    assert len({p.size["width"] for p in pictures}) == 1 and all(p.get_attribute("alt") for p in pictures)
    assert [entry for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_the_log_of_the_browser_would_tell_of_an_error(page):
    page.execute_script("setTimeout(() => { throw new Error('heard') })")
    heard = []
    for _ in range(50):
        heard += page.get_log("browser")
        if heard:
            break
        page.execute_async_script("setTimeout(arguments[0], 100)")
    assert any("heard" in entry["message"] for entry in heard)


def test_a_click_sorts_within_groups(page):
    fresh = ["-", "b", "a", "c", "-", "d", "-", "<script>throw"]
    page.refresh()
    assert rows(page) == fresh
    assert click(page, "Fréchet") == "descending"
    assert rows(page) == ["-", "c", "a", "b", "-", "d", "-", "<script>throw"]
    assert click(page, "Fréchet") == "ascending"
    assert rows(page) == fresh


def test_numbers_sort_as_numbers_and_missing_ones_come_last(page):
    page.refresh()
    assert click(page, "samples/s") == "descending"  # the fastest first: 1,000 before 900
    assert rows(page) == ["b", "a", "d", "c", "<script>throw"]
    assert click(page, "samples/s") == "ascending"
    assert rows(page) == ["c", "d", "a", "b", "<script>throw"]


def test_kinds_of_likelihood_are_never_mixed(page):
    page.refresh()
    click(page, "bits/dim")
    assert rows(page)[:6] == ["-", "c", "d", "-", "a", "-"]
    words = [row.text for row in page.find_elements("css selector", "#overview tr.group")]
    assert "exact (=)" in words[0] and "bounds (<=)" in words[1] and words[2] == "no figure"


def test_the_keyboard_sorts_too(page):
    from selenium.webdriver.common.keys import Keys

    page.refresh()
    button = page.find_element("css selector", "#overview thead th:first-child button")
    button.send_keys(Keys.ENTER)
    assert rows(page)[:3] == ["<script>throw", "a", "b"]


def test_another_figure_can_be_plotted(page):
    from selenium.webdriver.support.select import Select

    page.refresh()

    def shown():
        plots = page.find_elements("css selector", ".plots")
        return [p.find_element("css selector", "figcaption").text for p in plots if p.is_displayed()]

    assert shown() == ["Fréchet against the time of a sample"]
    Select(page.find_element("id", "figure")).select_by_visible_text("recall")
    assert shown() == ["recall against the time of a sample"]
    titles = page.find_elements("css selector", ".plots svg .mark title")
    assert any((t.get_attribute("textContent") or "").startswith("c: ") for t in titles)


@pytest.mark.parametrize("width", [1200, 390])
def test_nothing_is_wider_than_the_window(page, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.refresh()
    inner, content = page.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert inner == width and content <= width


@pytest.fixture
def recorded(browser):
    """The recorded page in a tab of its own, whole: on a busy machine it takes a while."""
    path = Path(__file__).parents[2] / "samples" / "bakeoff-fashion-mnist.html"
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    browser.get(path.as_uri())
    whole = "return document.readyState === 'complete' && [...document.images].every(i => i.complete)"
    WebDriverWait(browser, 120).until(lambda driver: driver.execute_script(whole))
    yield browser
    browser.close()
    browser.switch_to.window(first)


def test_the_page_of_the_recorded_bake_off_opens(recorded):
    pictures = recorded.find_elements("tag name", "img")
    assert len(pictures) > 30 and all(p.get_property("naturalWidth") > 0 for p in pictures)
    assert len(rows(recorded)) > 10 and click(recorded, "samples/s") == "descending"
    assert [entry for entry in recorded.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
