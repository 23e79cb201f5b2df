"""What a browser makes of the site: sorting, columns, filters, links, colours, widths."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sites import HOSTILE, METHODS, board_path, made

from lampbench.leaderboard import (
    Board,
    boards,
    columns,
)
from lampbench.leaderboard.site import write_site

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
in_browser = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER),
    reason="no chromium or no chromedriver on PATH: apt-get install chromium chromium-driver",
)


def started(folder: Path, preferences: Mapping[str, Any]) -> Any:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        f"--user-data-dir={folder}",
        "--window-size=1300,900",
    ):
        options.add_argument(argument)
    options.add_experimental_option("prefs", dict(preferences))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))


@pytest.fixture(scope="module")
def one_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    driver = started(tmp_path_factory.mktemp("profile"), {})
    yield driver
    driver.quit()


@pytest.fixture
def browser(one_browser: Any) -> Iterator[Any]:
    """A browser whose pages must log no error and ask for nothing but files."""
    one_browser.get_log("browser")
    one_browser.get_log("performance")
    yield one_browser
    assert one_browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in one_browser.get_log("performance")]
    requests = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    # The browser's own first page is none of ours.
    asked = [own["request"]["url"] for own in requests if not own["documentURL"].startswith("chrome")]
    assert asked
    assert {urlsplit(url).scheme for url in asked} <= {"file", "data"}


def go_to(driver: Any, page: Path) -> None:
    """Opens a page and waits for all of it: the driver's own wait can end on the empty document before it."""
    from selenium.webdriver.support.wait import WebDriverWait

    address = page.as_uri()
    driver.get(address)
    there = "return location.href === arguments[0] && document.readyState === 'complete'"
    WebDriverWait(driver, 20).until(lambda own: own.execute_script(there, address))


def follow(driver: Any, selector: str, title: str) -> None:
    """Clicks a link and waits for the page whose heading starts with that title."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
    from selenium.webdriver.support.wait import WebDriverWait

    find(driver, selector).click()
    moving = (NoSuchElementException, StaleElementReferenceException)
    WebDriverWait(driver, 20, ignored_exceptions=moving).until(lambda own: find(own, "h1").text.startswith(title))


def find(driver: Any, selector: str) -> Any:
    return driver.find_element("css selector", selector)


def listed(driver: Any) -> list[str]:
    """Names of the entries that can be seen, in order."""
    script = (
        "return [...document.querySelectorAll('#board .method a')].filter(a => a.offsetParent).map(a => a.textContent)"
    )
    return [str(name) for name in driver.execute_script(script)]


def heading(driver: Any, title: str) -> Any:
    return driver.find_element("xpath", f"//table[@id='board']//button[text()='{title}']")


def by(board: Board, value: Callable[[Any], float | None]) -> list[str]:
    """Ranked names in ascending order of a value, absent ones last, then the one that is not ranked."""
    ranked = [entry for entry in board.entries if entry.rank is not None]
    known = sorted((own for own in ranked if value(own) is not None), key=lambda own: value(own) or 0)
    rest = [own for own in ranked if value(own) is None]
    return [own.name for own in (*known, *rest)] + ["latest-nowhere"]


@in_browser
def test_a_column_is_sorted_by_a_click(browser: Any, site: Path, lamp2m: Board) -> None:
    go_to(browser, board_path(site, "lamp2m"))
    assert listed(browser) == [entry.name for entry in lamp2m.entries]
    seconds = heading(browser, "s/user")
    seconds.click()
    assert listed(browser) == by(lamp2m, lambda entry: entry.seconds_per_user)
    assert seconds.find_element("xpath", "ancestor::th").get_attribute("aria-sort") == "ascending"
    seconds.click()
    assert listed(browser)[:2] == ["oppu", "reft"]
    # What was not measured stays last, and what is not ranked stays apart.
    assert listed(browser)[-2:] == ["zero-shot", "latest-nowhere"]
    heading(browser, "method").click()
    assert listed(browser)[:-1] == sorted(METHODS)
    assert len(browser.find_elements("css selector", "#board [aria-sort]")) == 1


@in_browser
def test_a_column_is_sorted_by_the_keyboard(browser: Any, site: Path, lamp2m: Board) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    go_to(browser, board_path(site, "lamp2m"))
    for _ in range(40):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        if browser.switch_to.active_element.text == "accuracy":
            break
    head = browser.switch_to.active_element.find_element("xpath", "ancestor::th")
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    assert head.get_attribute("aria-sort") == "descending"
    ActionChains(browser).send_keys(Keys.SPACE).perform()
    assert head.get_attribute("aria-sort") == "ascending"
    assert listed(browser) == by(lamp2m, lambda entry: entry.scores["accuracy"][0].value)


def titles(driver: Any) -> list[str]:
    """Headings of the columns that can be seen."""
    script = "return [...document.querySelectorAll('#board thead th')].filter(c => c.offsetParent).map(c => c.querySelector('.title').innerText)"
    return [str(title) for title in driver.execute_script(script)]


MAIN = ["rank", "method", "accuracy", "against zero-shot", "params/user", "s/user", "ms/query", "seeds"]


@in_browser
def test_a_board_shows_eight_columns_and_others_on_request(browser: Any, site: Path, lamp2m: Board) -> None:
    go_to(browser, board_path(site, "lamp2m"))
    assert titles(browser) == MAIN
    find(browser, "button[data-view=cost]").click()
    own = columns(lamp2m.task)
    assert titles(browser) == [*MAIN[:3], *(column.title for column in own if column.cell and column.view == "cost")]
    find(browser, ".chooser summary").click()
    browser.find_element("xpath", "//label[normalize-space()='f1']/input").click()
    assert titles(browser)[3] == "f1"
    values = [
        cell.text for cell in browser.find_elements("css selector", "#board tbody tr:first-child td:nth-child(4)")
    ]
    assert values[0].startswith(f"{lamp2m.entries[0].scores['f1'][0].value:.4f}")
    assert find(browser, "button[data-view=cost]").get_attribute("aria-pressed") == "false"
    find(browser, "button[data-view=all]").click()
    assert titles(browser) == [column.title for column in own if column.cell]
    find(browser, "button[data-view=main]").click()
    assert titles(browser) == MAIN


@in_browser
def test_entries_are_filtered_by_name_and_by_rank(browser: Any, site: Path) -> None:
    go_to(browser, board_path(site, "lamp2m"))
    text = find(browser, "input[name=text]")
    text.send_keys("EFT")
    assert listed(browser) == ["reft"]
    # The plots show what the table shows.
    for plot in ("scores", "users", "params", "seconds", "query"):
        script = f"return [...document.querySelectorAll('#plot-{plot} svg g[data-entry]')].filter(g => g.getClientRects().length).map(g => g.querySelector('title').textContent)"
        assert [title.split(":")[0] for title in browser.execute_script(script)] == ["reft"], plot
    height = "return document.querySelector('#plot-scores svg').viewBox.baseVal.height"
    assert browser.execute_script(height) == pytest.approx(40 + 22 + 6)
    text.clear()
    text.send_keys("t")
    assert "oppu" not in listed(browser)
    assert "latest-nowhere" in listed(browser)
    find(browser, "input[name=ranked]").click()
    assert "latest-nowhere" not in listed(browser)
    assert not find(browser, ".divider").is_displayed()
    assert find(browser, "output").text == f"{len(listed(browser))} of 7 shown"


@in_browser
def test_links_lead_from_the_front_page_to_a_board_a_run_and_back(browser: Any, site: Path) -> None:
    go_to(browser, (site / "index.html"))
    follow(browser, "main table thead a", "lamp2m under mini")
    follow(browser, "a[aria-label='run of seed 1']", "perfit lamp2m under mini, seed 1")
    follow(browser, "ul.links a", "lamp2m under mini")
    assert find(browser, "tr:target .method").text == "perfit"
    follow(browser, "tr:target .method a", "perfit method")


@in_browser
def test_links_lead_from_the_front_page_to_published_numbers_and_to_ours(browser: Any, site: Path) -> None:
    go_to(browser, site / "index.html")
    follow(browser, "section[aria-labelledby=published] li a", "Published numbers")
    target = find(browser, ":target")
    assert target.text == "A paper"
    assert target.find_element("xpath", "..").find_element("css selector", "dl").text.split() == [
        "protocol", "mini", "model", "Some-7b",
    ]  # fmt: skip
    follow(browser, "table a", "lamp2m under mini")
    assert find(browser, "tr:target .method").text == "oppu"
    follow(browser, "header .pages a", "Published numbers")
    follow(browser, "header ol a", "Which method")


@in_browser
def test_the_colours_can_be_chosen_and_are_remembered(browser: Any, site: Path) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
    )
    go_to(browser, (site / "index.html"))
    colour = "return getComputedStyle(document.body).backgroundColor"
    light = browser.execute_script(colour)
    find(browser, "#theme").click()
    dark = browser.execute_script(colour)
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(21, 24, 28)")
    go_to(browser, board_path(site, "lamp2m"))
    assert browser.execute_script(colour) == dark
    find(browser, "#theme").click()
    assert browser.execute_script(colour) == light
    browser.execute_script("localStorage.clear()")


@in_browser
def test_the_colours_can_be_chosen_where_storage_is_refused(browser: Any, site: Path) -> None:
    script = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})"
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    try:
        go_to(browser, (site / "index.html"))
        find(browser, "#theme").click()
        assert browser.execute_script("return document.documentElement.dataset.theme") in ("light", "dark")
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": added["identifier"]})


@in_browser
@pytest.mark.parametrize("width", [390, 1440])
def test_pages_fit_a_phone_and_a_wide_screen_and_hide_no_plot(browser: Any, site: Path, width: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    run = next(iter(sorted((site / "runs").iterdir())))
    method, published = site / "methods" / "perfit.html", site / "published.html"
    right = "return Math.max(0, ...[...document.querySelectorAll('svg')].map(own => own.getBoundingClientRect().right))"
    for path in (site / "index.html", run, method, published, board_path(site, "lamp2m")):
        go_to(browser, path)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width, path
        assert browser.execute_script(right) <= width, path
    # A table that does not fit is scrolled, by the keyboard too; with its main columns, a wide screen holds it.
    table = "const own = document.querySelector('.scroll'); return [own.scrollWidth > own.clientWidth, own.tabIndex]"
    assert browser.execute_script(table) == [width < 600, 0]
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@in_browser
def test_hostile_rows_run_nothing(browser: Any, tmp_path: Path) -> None:
    def hostile(row: dict[str, Any]) -> None:
        row["identity"]["config"] = {"k": HOSTILE}
        row["data"]["notes"] = [HOSTILE]

    for path in write_site(boards([made("lamp2m", HOSTILE, 0.5, 0, hostile)]), tmp_path / "site"):
        if path.suffix == ".html":
            go_to(browser, path)
            # An alert would make this raise; the text itself is there to read.
            assert "alert(1)" in find(browser, "main").text


@in_browser
def test_without_scripts_the_table_is_there(site: Path, tmp_path: Path, lamp2m: Board) -> None:
    driver = started(tmp_path / "profile", {"profile.managed_default_content_settings.javascript": 2})
    try:
        go_to(driver, board_path(site, "lamp2m"))
        names = [cell.text.splitlines()[0] for cell in driver.find_elements("css selector", "#board tbody .method")]
        assert names == [entry.name for entry in lamp2m.entries]
        assert driver.find_elements("css selector", "#board button") == []
        assert not find(driver, "form.filter").is_displayed()
        assert not find(driver, "#theme").is_displayed()
    finally:
        driver.quit()
