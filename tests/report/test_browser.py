"""The pages in a real browser: Chromium without a window, driven by Selenium; skipped where either is missing."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nas.draw.style import INK
from nas.draw.theme import DARK
from nas.genotype.file import Genotype
from nas.report.comparison import write_comparison
from nas.report.page import write_report
from nas.report.scoring_page import write_scoring
from nas.run.scoring import Scoring
from nas.run.task import Preview

webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402  # where there is Selenium at all
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CONTRAST = """
const light = (text) => {
  const linear = (v) => (v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  const [r, g, b] = text.match(/[\\d.]+/g).map((v) => linear(v / 255));
  return .2126 * r + .7152 * g + .0722 * b;
};
const ground = (element) => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (colour.startsWith("rgb(")) return colour;
  }
  return "rgb(255, 255, 255)";
};
const poor = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.textContent.trim() || element.closest("svg, script, .stage")) continue;
  if (!element.checkVisibility()) continue;
  const [a, b] = [light(getComputedStyle(element).color), light(ground(element))];
  const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (ratio < 4.5) poor.push(`${texts.currentNode.textContent.trim()}: ${ratio.toFixed(2)}`);
}
return poor;
"""

BEYOND = """
const screen = document.documentElement.clientWidth;
const scrolls = (element) => ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
const hinted = (element) => {
  const style = getComputedStyle(element);
  return style.backgroundImage.includes("linear-gradient") && style.backgroundAttachment.includes("local");
};
const found = [];
for (const element of document.body.querySelectorAll("*")) {
  if (!element.checkVisibility() || element.matches("caption, .skip")) continue;
  let around = element.parentElement;
  while (around && !scrolls(around) && getComputedStyle(around).overflowX !== "hidden") around = around.parentElement;
  if (!around && element.getBoundingClientRect().right > screen + 1) found.push(element.outerHTML.slice(0, 99));
  if (scrolls(element) && element.scrollWidth > element.clientWidth && !hinted(element)) {
    found.push(`no hint: ${element.outerHTML.slice(0, 99)}`);
  }
}
return found;
"""

UNNAMED = """
return [...document.querySelectorAll("input, select, button, a, [role=region], [role=img]")].filter((element) =>
  !(element.getAttribute("aria-label") || element.textContent.trim() || element.closest("label")?.textContent.trim())
).map((element) => element.outerHTML);
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:  # Selenium would go and fetch them
        pytest.skip("no Chromium with its chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('browser')}")
    for argument in ("--headless=new", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def pages(
    retrained: Path,
    preview: Preview,
    scoring: Scoring,
    make_search: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    runs = [make_search("a"), make_search("b", seed=1), make_search("c", "task.crop=48")]
    report = write_report(retrained, folder / "run.html", previews=[preview])
    notebook = folder / "notebook.html"
    notebook.write_text(
        f"<!doctype html><title>Notebook</title><style>h1 {{ color: red }}</style>{report._repr_html_()}"
    )
    viewport = '<meta name="viewport" content="width=device-width">'
    genotype = folder / "genotype.html"
    genotype.write_text(f"<!doctype html>{viewport}<title>Genotype</title>{Genotype.load('darts-v2')._repr_html_()}")
    comparison = write_comparison(runs, folder / "comparison.html")
    darts = write_report(make_search("darts", "options.cells=3", config_name="darts"), folder / "darts.html")
    written = {"run": report.path, "comparison": comparison.path, "darts": darts.path}
    written["scoring"] = write_scoring(scoring, folder / "scoring").path
    return {**written, "notebook": notebook, "genotype": genotype}


Open = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Open:
    """Open a page, by default that of a run, in a window of a width, and with the preferences of a reader."""

    def run(
        page: str = "run", width: int = 1280, scheme: str = "light", motion: str = "reduce", script: bool = True
    ) -> Any:
        phone = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
        browser.get(pages[page].as_uri())
        return browser

    return run


def find(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def shown(browser: Any, selector: str) -> list[str]:
    """The texts of the elements that can be seen."""
    return [each.text for each in browser.find_elements("css selector", selector) if each.is_displayed()]


@pytest.mark.parametrize("page", ["run", "comparison", "darts", "scoring"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_its_width_and_can_be_read(opened: Open, page: str, width: int, scheme: str) -> None:
    browser = opened(page, width, scheme)
    beyond = "const page = document.documentElement; return page.scrollWidth - page.clientWidth"
    assert browser.execute_script(beyond) == 0
    assert browser.execute_script(BEYOND) == []
    browser.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
    assert browser.execute_script(beyond) == 0
    assert browser.execute_script(BEYOND) == []
    assert browser.execute_script(CONTRAST) == []
    dark = browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(19, 20, 24)"
    assert dark == (scheme == "dark")


def test_many_decisions_are_folded_on_a_phone(opened: Open) -> None:
    browser = opened("darts", 390)
    assert len(browser.find_elements("css selector", ".course")) == 28
    assert find(browser, "#timeline").size["height"] < 3000
    assert shown(browser, ".course .plot") == []
    chosen = shown(browser, ".course .taken")
    assert len(chosen) == 28
    find(browser, ".course summary").send_keys(Keys.ENTER)
    assert len(shown(browser, ".course .plot")) == 1
    find(browser, "#epoch").send_keys(Keys.HOME)
    assert shown(browser, ".course .taken") != chosen, "folded ones tell what is derived, too"
    assert len(shown(opened("run", 390), ".course .plot")) == 6, "a few are open"


def test_what_scrolls_has_a_shadow_only_if_there_is_more(opened: Open) -> None:
    """The pixels of the right edge of a table: coloured at first, plain where it ends."""
    browser = opened("darts", 390)
    table = find(browser, "#decisions .scroll")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", table)
    browser.execute_script("arguments[0].querySelector('table').style.opacity = 0", table)

    def edge() -> tuple[int, ...]:
        with Image.open(io.BytesIO(table.screenshot_as_png)) as image:
            found: Any = image.convert("RGB").getpixel((image.width - 3, image.height // 2))
        return tuple(found)

    assert edge() != (255, 255, 255)
    browser.execute_script("arguments[0].scrollLeft = 9999", table)
    assert edge() == (255, 255, 255)


@pytest.mark.parametrize("page", ["run", "comparison", "scoring"])
def test_it_runs_without_complaint_and_loads_nothing(opened: Open, page: str) -> None:
    browser = opened(page)
    assert browser.get_log("browser") == []
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []
    assert browser.execute_script(UNNAMED) == []
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.hostile = 1'; document.body.append(s)"
    )
    assert browser.execute_script("return window.hostile") is None, "scripts but our own are refused"
    browser.get_log("browser")


def test_the_timeline_by_keyboard(opened: Open) -> None:
    browser = opened()
    slider = find(browser, "#epoch")
    assert slider.get_attribute("aria-valuetext") == "step 60 of 60"
    weights = shown(browser, ".bars b")
    assert len(shown(browser, "[data-picture]")) == 1
    slider.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert slider.get_attribute("aria-valuetext") == "step 40 of 60"
    assert find(browser, "#timeline output").text == "step 40 of 60"
    assert shown(browser, ".bars b") != weights
    assert find(browser, ".timed .now").get_attribute("style").startswith("left: 66.6")
    assert shown(browser, "[data-none]") == []
    slider.send_keys(Keys.HOME)
    assert set(shown(browser, ".bars b")) == {"0.500", "0.333", "0.125"}, "uniform as the search begins"
    assert shown(browser, ".taken") == []
    assert shown(browser, "[data-picture]") == []
    assert shown(browser, "[data-none]") == ["No genotype is derived at this step."]
    outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus can be seen"


def test_the_timeline_plays(opened: Open) -> None:
    browser = opened()
    button = find(browser, "#timeline .play")
    button.send_keys(Keys.SPACE)
    assert (button.text, button.get_attribute("aria-pressed")) == ("Pause", "true")
    wait(lambda: find(browser, "#epoch").get_attribute("value") in ("1", "2", "3"))
    button.send_keys(Keys.ENTER)
    assert (button.text, button.get_attribute("aria-pressed")) == ("Play", "false")


def wait(holds: Callable[[], bool]) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(None, 10, poll_frequency=0.02).until(lambda _: holds())


def test_the_divider_by_keyboard_and_by_dragging(opened: Open) -> None:
    browser = opened()
    divide, stage = find(browser, ".divide"), find(browser, ".stage")
    divide.send_keys(*[Keys.ARROW_RIGHT] * 10)
    assert style(browser, "--at") == "60%"
    clip = browser.execute_script("return getComputedStyle(document.querySelector('.layer.left')).clipPath")
    assert clip == "inset(0px 40% 0px 0px)"
    assert browser.execute_script("return getComputedStyle(document.querySelector('.stage')).outlineStyle") == "solid"
    size = stage.size
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", stage)
    drag = ActionChains(browser).move_to_element(stage).click_and_hold()
    drag.move_by_offset(-round(size["width"] * 0.25), 0).release().perform()
    assert float(style(browser, "--at").removesuffix("%")) == pytest.approx(25, abs=2)
    assert [each.text for each in browser.find_elements("css selector", ".stage .tag")] == ["rainy", "derained"]


def style(browser: Any, name: str) -> str:
    found: str = browser.execute_script(
        "return document.querySelector('.viewer').style.getPropertyValue(arguments[0])", name
    )
    return found.strip()


def test_the_frames_of_a_clip(opened: Open) -> None:
    browser = opened()
    assert find(browser, ".viewer .play").text == "Play", "still, where a reader prefers less motion"
    frame = find(browser, ".frame")
    frame.send_keys(Keys.END)
    assert style(browser, "--frame") == "3"
    image, stage = find(browser, ".layer.right img"), find(browser, ".stage")
    assert image.rect["y"] + image.rect["height"] == pytest.approx(stage.rect["y"] + stage.rect["height"], abs=1)
    assert image.rect["height"] == pytest.approx(4 * stage.rect["height"], abs=2)
    find(browser, "select[data-side=right]").send_keys("truth")
    assert find(browser, ".layer.right").get_attribute("data-layer") == "truth"
    assert find(browser, ".divide").get_attribute("aria-label") == "Divider between rainy and truth"
    moving = opened(motion="no-preference")
    wait(lambda: style(moving, "--frame") in ("1", "2"))
    find(moving, ".viewer .play").send_keys(Keys.SPACE)
    assert find(moving, ".viewer .play").text == "Play"


def test_a_plot_tells_its_values(opened: Open) -> None:
    browser = opened()
    plot = find(browser, "#losses .plot")
    area = plot.find_element("css selector", ".area")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", area)
    ActionChains(browser).move_to_element(area).perform()
    told = plot.find_element("css selector", ".told").text
    step, _, value = told.removeprefix("step ").partition(": ")
    assert abs(int(step) - 30) <= 1
    assert float(value) == pytest.approx(1 / int(step), rel=0.02)


def test_pictures_of_one_method_stand_below_one_another(opened: Open) -> None:
    browser = opened("scoring", 390)
    figures = browser.find_elements("css selector", "#worst .exhibit figure")[:5]
    texts = [figure.text for figure in figures]
    assert texts == ["<b>rainy", "ours", "truth", "error of <b>rainy", "error of ours"]
    places = [figure.rect for figure in figures]
    assert [places[i]["x"] for i in (3, 4)] == [places[i]["x"] for i in (0, 1)]
    assert places[3]["y"] > places[0]["y"]
    loaded = "return [...document.images].map((image) => [image.naturalWidth, image.naturalHeight])"
    assert browser.execute_script(loaded) == [[60, 40]] * 5 + [[60, 40]] * 3
    area = find(browser, "#course .area")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", area)
    ActionChains(browser).move_to_element(area).perform()
    assert find(browser, "#course .told").text == "frame 2: <b>rainy 20, ours 30"


def test_cells_open_by_keyboard(opened: Open) -> None:
    browser = opened()
    cell = find(browser, "details.cell")
    assert shown(browser, "details.cell svg") == []
    cell.find_element("css selector", "summary").send_keys(Keys.ENTER)
    assert len(shown(browser, "details.cell svg")) == 1
    browser.execute_script("document.activeElement.blur()")
    find(browser, "body").send_keys(Keys.TAB)
    opened()
    find(browser, "body").send_keys(Keys.TAB)
    assert browser.execute_script("return document.activeElement.className") == "skip"


def test_it_prints_with_nothing_folded(opened: Open) -> None:
    browser = opened()
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script("return document.querySelectorAll('details:not([open])').length") == 0
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script("return document.querySelectorAll('details:not([open])').length") > 0
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    for selector in ("nav", ".scrubber", ".controls", ".divide"):
        assert not find(browser, selector).is_displayed(), selector
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})["data"]
    assert printed.startswith("JVBERi0"), "a PDF"


def test_without_scripts_it_still_tells_everything(opened: Open) -> None:
    browser = opened(script=False)
    assert find(browser, "h1").text.endswith("/network")
    for selector in (".scrubber", ".controls", ".divide"):
        assert not find(browser, selector).is_displayed(), selector
    assert len(shown(browser, "[data-picture]")) == 1
    assert len(shown(browser, ".stage")) == 1
    opened()  # scripts run again


def test_a_notebook_shows_it_in_a_frame_of_its_own(opened: Open) -> None:
    browser = opened("notebook")
    address = browser.current_url
    browser.switch_to.frame(find(browser, "iframe"))
    colour = "return getComputedStyle(document.querySelector('h1')).color"
    assert browser.execute_script(colour) == "rgb(27, 28, 32)", "the style of the page is not ours"
    find(browser, "#epoch").send_keys(Keys.HOME)
    assert find(browser, "#timeline output").text == "step 0 of 60", "its script runs"
    find(browser, "a[href='#provenance']").send_keys(Keys.ENTER)
    assert browser.execute_script("return [location.href, scrollY > 0]") == ["about:srcdoc#provenance", True]
    browser.switch_to.default_content()
    assert browser.current_url == address
    assert browser.get_log("browser") == []


def test_a_picture_in_a_notebook_scrolls_by_itself(opened: Open) -> None:
    beyond = "const page = document.documentElement; return page.scrollWidth - page.clientWidth"
    assert opened("genotype", 390).execute_script(beyond) == 0


def test_pictures_are_dark_where_the_page_is(opened: Open) -> None:
    script = "return getComputedStyle(document.querySelector(arguments[0])).fill"
    for scheme, ink in (("light", INK), ("dark", DARK[INK])):
        browser = opened("comparison", scheme=scheme)
        red, green, blue = bytes.fromhex(ink.removeprefix("#"))
        assert browser.execute_script(script, ".picture text") == f"rgb({red}, {green}, {blue})"
        assert browser.execute_script(script, ".picture svg > rect") == "none"
