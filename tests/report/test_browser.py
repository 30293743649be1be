"""The page in headless Chromium, with the network cut: what a person can do with it works.

Skipped where there is no Chromium (on Debian: apt-get install chromium) or no playwright.
"""

import base64
import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from cardamage.config import loading
from cardamage.report.comparison import comparison_report
from cardamage.report.index import write_index
from cardamage.report.load import load_run
from cardamage.report.page import publish
from cardamage.report.run import run_report
from tests.helpers.finished_runs import make_run

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium; apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of one run, of two compared, and of all, by name."""
    folder = tmp_path_factory.mktemp("browsed") / "runs"
    runs = [
        make_run(folder / name, epochs=4, images=40, overlays=40, level=level)
        for name, level in (("weak", 0.3), ("strong", 0.9))
    ]
    loaded = [load_run(run, loading.load(run.config)) for run in runs]
    return {
        "run": publish(run_report(loaded[1]), runs[1].report),
        "comparison": publish(comparison_report(loaded), folder.parent / "compared"),
        "index": write_index(folder),
    }


@pytest.fixture
def open_page(browser, pages):
    """Opens a page offline; afterwards nothing was asked for and nothing complained."""
    contexts, complaints, asked = [], [], []

    def opened(name, **options):
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(pages[name].as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "about:"))] == []


def dice_of(page):
    texts = page.locator(".shots button > span:last-child").all_inner_texts()
    return [float(re.search(r"[\d.]+", text.removeprefix("Dice "))[0]) for text in texts]


def pixels(page, panel, number=0):
    """What is drawn on a panel of the large view, uint8 (H, W, 4)."""
    uri = page.locator(f"[data-panel={panel}] canvas").nth(number).evaluate("c => c.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_images_are_sorted_filtered_and_shown_in_parts(open_page):
    page = open_page("run")
    assert page.locator(".shots li").count() == 24
    page.get_by_role("button", name="Show more").click()
    assert page.locator(".shots li").count() == 40
    box = page.locator(".shots .stack").last.bounding_box()  # where it will be once it is painted
    assert box["width"] == pytest.approx(box["height"], abs=1)
    assert dice_of(page) == sorted(dice_of(page))
    page.locator(".controls [name=sort]").select_option("best")
    assert dice_of(page) == sorted(dice_of(page), reverse=True)
    page.locator(".controls [name=class]").select_option(label="dent")
    assert page.locator(".found").inner_text() == "30 of 40 images."  # three of four have it
    page.locator(".controls [name=low]").fill("2")
    assert page.locator(".found").inner_text() == "0 of 40 images."
    assert page.locator(".shots li").count() == 0


def test_the_slider_moves_through_the_epochs(open_page):
    page = open_page("run")
    slider = page.locator(".controls [name=a]")
    assert slider.input_value() == "3"
    last = dice_of(page)
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert page.locator(".controls output").inner_text() == "epoch 1"
    assert sum(dice_of(page)) < sum(last)


def test_an_image_opens_large_by_keyboard_and_its_errors_are_right(open_page):
    page = open_page("run")
    page.locator(".shots button").first.focus()
    page.keyboard.press("Enter")
    name = page.locator("dialog h3").inner_text()
    page.wait_for_function("document.querySelector('[data-panel=errors] canvas').width === 32")
    truth, errors = (pixels(page, panel)[..., 3] > 0 for panel in ("truth", "errors"))
    predicted = pixels(page, "prediction")[..., 3] > 0
    assert np.array_equal(errors, truth | predicted)
    page.keyboard.press("ArrowRight")
    assert page.locator("dialog h3").inner_text() != name
    page.keyboard.press("ArrowLeft")
    assert page.locator("dialog h3").inner_text() == name
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    page.wait_for_function("document.activeElement.closest('.shots') !== null")


def test_two_runs_are_wiped_and_what_changed_is_counted(open_page):
    page = open_page("comparison")
    words = page.locator(".found").inner_text()
    mended, broken, unchanged = map(int, re.findall(r"(\d+) (?:mended|broken|unchanged)", words))
    assert "From weak to strong" in words
    assert mended + broken + unchanged == 40
    assert mended > broken
    page.locator(".controls [name=change]").select_option("mended")
    assert page.locator(".found").inner_text().startswith(f"{mended} of 40 images.")
    page.locator(".shots button").first.click()
    wipe = page.locator("dialog [name=wipe]")
    wipe.fill("25")
    first, second = (
        page.locator("[data-panel=prediction] canvas").nth(n).evaluate("c => c.style.clipPath")
        for n in (0, 1)
    )
    assert (first, second) == ("inset(0px 75% 0px 0px)", "inset(0px 0px 0px 25%)")


def test_tables_sort_by_click_and_by_keyboard(open_page):
    page = open_page("run")
    table = page.locator("table[data-sortable]").first
    button = table.get_by_role("button", name="epoch")
    first = table.locator("tbody th").first
    button.click()
    assert first.inner_text().endswith("1")
    button.focus()
    page.keyboard.press("Enter")
    assert first.inner_text().endswith("4")
    assert table.locator("th[aria-sort=descending]").count() == 1


def test_the_index_shows_what_differs_and_sorts(open_page):
    page = open_page("index")
    assert page.locator("tbody tr th a").inner_text() == "strong"
    assert page.locator("[data-difference] [role=status]").inner_text()
    page.get_by_role("button", name="run").click()
    assert page.locator("table[data-sortable] tbody th").first.inner_text() == "strong"


@pytest.mark.parametrize("name", ["run", "comparison", "index"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_and_wide_tables_say_so(open_page, name, width, scheme):
    page = open_page(name, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.wait_for_function(
        "[...document.querySelectorAll('.scroll')].every("
        "box => (box.scrollWidth > box.clientWidth + 1) === box.classList.contains('wide'))"
    )
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_paper_gets_the_still_pictures_in_light_colours(open_page):
    page = open_page("run", color_scheme="dark")
    assert page.locator("section.gallery").is_visible()
    assert not page.locator("section.still").is_visible()
    page.emulate_media(media="print")
    assert not page.locator("section.gallery").is_visible()
    assert page.locator("section.still").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf()[:5] == b"%PDF-"


def test_without_its_script_the_page_shows_pictures(open_page):
    page = open_page("run", java_script_enabled=False)
    assert page.locator("section.still img").count() == 18
    assert not page.locator("section.gallery").is_visible()
