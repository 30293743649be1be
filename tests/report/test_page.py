"""The page: whole, offline, usable without eyes or mouse, and safe whatever things are called."""

import base64
import dataclasses
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cardamage.config import loading
from cardamage.data.drawing import layer_png
from cardamage.errors import RunError
from cardamage.report import panels
from cardamage.report.load import load_run
from cardamage.report.page import breakable, code_span, escape_markdown, publish
from cardamage.report.run import run_report
from tests.helpers.finished_runs import make_run

NASTY = "<script>alert(1)</script>"


class Page(HTMLParser):
    """The tags of a page with their attributes, its text, and whether every tag is closed."""

    VOID = ("meta", "link", "img", "source", "br", "input", "wbr")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def report(results):
    return run_report(results)


@pytest.fixture(scope="module")
def page(report) -> Page:
    return Page(report.page)


def test_the_page_tells_what_to_use_and_how(page, results):
    assert f"Checkpoint to use: epoch {results.best}" in page.text
    assert (
        f"cardamage predict {results.run.root} --images PHOTOS "
        f"--checkpoint {results.best} --out OUT"
    ) in page.text
    assert "highest validation Foreground Dice" in page.text


def test_every_checkpoint_and_every_score_has_its_row(page, report, results):
    for column in ("loss", "dice", "iou", "accuracy", "dice_fg", "iou_fg", "mdice", "miou"):
        at = results.tested_epochs.index(results.best)
        assert f"{results.tested[column][at]:.3f}" in page.text
    assert report.page.count('<tr class="best"') == 1


def test_nothing_is_asked_of_the_network(page, report):
    links = [
        value
        for _, attrs in page.tags
        for name, value in attrs.items()
        if name in ("src", "srcset", "href", "action", "data")
    ]

    assert links
    beside = re.compile(r"[\w.]+")  # what lies beside the page, for a click
    assert all(link.startswith(("data:", "#")) or beside.fullmatch(link) for link in links)
    assert "http://" not in report.page
    assert "https://" not in report.page
    assert "@import" not in report.page
    assert "url(" not in report.page


def test_the_browser_is_told_to_run_our_script_only(page, report):
    (script,) = re.findall(r"<script>(.*?)</script>", report.page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [a for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]

    assert f"script-src 'sha256-{digest}'" in policy["content"]
    assert "default-src 'none'" in policy["content"]


def test_pictures_speak_and_ids_are_unique(page):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]

    assert all(attrs.get("alt") for attrs in page.all("img"))
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for a in page.all("section")} <= set(ids)
    assert all(
        attrs.get("tabindex") == "0" for attrs in page.all("div") if attrs.get("class") == "scroll"
    )
    assert all(attrs.get("type") == "button" for attrs in page.all("button"))


def test_embedded_pictures_are_pictures(page, results):
    sources = [attrs["src"] for attrs in page.all("img")]
    for source in sources:
        content = base64.b64decode(source.partition(",")[2])
        with Image.open(io.BytesIO(content)) as image:
            image.load()

    assert len(sources) == len(panels.RUN) + 3 * len(results.result.map_samples)


def test_figures_and_tables_lie_beside_the_page_which_links_to_them(report, tmp_path):
    published = publish(report, tmp_path / "report")

    assert published == tmp_path / "report" / "index.html"
    names = ("confusion", *(panel.name for panel in panels.RUN))
    drawn = {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    beside = {path.name for path in published.parent.iterdir()} - {"index.html"}
    assert set(re.findall(r'<a href="([\w.]+)">', report.page)) == beside
    assert beside == {
        "summary.md",
        "classes.csv",
        "confusion.csv",
        "damages.csv",
        "images.csv",
        "pictures.png",
        *drawn,
    }
    for path in published.parent.glob("*.png"):
        with Image.open(path) as image:
            assert image.format == "PNG"


def test_the_summary_names_files_that_are_there(report):
    named = re.findall(r"\]\((\w+)\.png\)", report.summary)

    assert sorted(named) == sorted(report.figures)


def test_two_reports_of_one_run_are_the_same_but_for_their_time(results, report):
    again = run_report(results)

    def timeless(text):
        return re.sub(r"Made [\d: -]+ UTC", "", text)

    assert timeless(again.page) == timeless(report.page)
    assert again.summary == report.summary


def test_names_are_shown_and_never_run(tmp_path):
    run = make_run(
        tmp_path / 'a "quoted" & $x$ run',
        epochs=2,
        images=3,
        classes=(NASTY, "50 % $\\frac{$ | `b`"),
        file_name='"><img src=x onerror=alert({})>.jpg',
        overrides=("data.source='javascript:alert(1)//<b>'",),
    )
    rendered = run_report(load_run(run, loading.load(run.config)))
    page = Page(rendered.page)

    assert [attrs.get("type") for attrs in page.all("script")] == ["application/json", None]
    pictures = [a for a in page.all("figure") if a.get("class") in ("picture", "suspect")]
    assert len(page.all("b")) == len(pictures) + 3  # names, stages
    assert all(not name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert NASTY in page.text
    assert '"><img src=x onerror=alert(0)>.jpg' in page.text
    assert NASTY not in rendered.summary
    assert r"\<script\>alert(1)\</script\>" in rendered.summary
    assert r"50 % $\\frac{$ \| \`b\`" in rendered.summary


def test_undefined_scores_are_dashes_and_gaps(results):
    loss = results.metrics["val_loss"].copy()
    loss[1] = np.nan
    iou = np.full(len(results.epochs), np.nan)
    gaps = dataclasses.replace(
        results,
        metrics=results.metrics | {"val_loss": loss, "val_iou": iou},
        tested=results.tested | {"mdice": np.full(len(results.tested_epochs), np.nan)},
    )

    report = run_report(gaps)

    assert '<td data-value="">\N{EN DASH}</td>' in report.page
    assert not re.search(r"\bnan\b", Page(report.page).text.lower())
    assert not re.search(r"\bnan\b", report.summary.lower())


def test_one_epoch_one_image_one_class_make_a_report(tmp_path):
    run = make_run(tmp_path / "tiny", epochs=1, images=1, classes=("dent",), overlays=0)

    report = run_report(load_run(run, loading.load(run.config)))

    assert "1 image of the test split" in Page(report.page).text
    assert "pictures" not in report.figures
    assert "Pictures from" not in report.page


def test_a_model_that_finds_nothing_makes_a_report(tmp_path):
    run = make_run(tmp_path / "blind", epochs=2, images=4, finds_nothing=True)

    page = Page(run_report(load_run(run, loading.load(run.config))).page)

    assert "predicts no foreground at all" in page.text


def test_names_of_other_alphabets_make_a_report(tmp_path):
    run = make_run(tmp_path / "plain", epochs=1, images=2, classes=("傷", "вмятина", "🚗"))

    assert "вмятина" in Page(run_report(load_run(run, loading.load(run.config))).page).text


def test_maps_of_another_size_are_refused(results):
    small = layer_png(np.zeros((31, 32), np.uint8))
    result = dataclasses.replace(results.result, maps=(small,) * len(results.result.maps))

    with pytest.raises(RunError, match="do not fit the shards"):
        run_report(dataclasses.replace(results, result=result))


def test_a_folder_that_cannot_be_written_is_refused(report, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(RunError, match="choose another --out"):
        publish(report, tmp_path / "file" / "report")


def test_markdown_stays_one_line():
    assert escape_markdown("a\n# b_c") == r"a \# b\_c"


def test_markdown_holds_no_escape_sequences():
    assert escape_markdown("a\x1b[2J") == r"a\\x1b\[2J"


@pytest.mark.parametrize(
    ("text", "code"),
    [("a b", "`a b`"), ("a `b`", "`` a `b` ``"), ("```", "```` ``` ````"), ("a\n<b>", r"`a\n<b>`")],
)
def test_code_in_markdown_stays_code(text, code):
    assert code_span(text) == code


def test_a_name_breaks_behind_its_signs_and_holds_no_markup():
    assert breakable("optim.lr=0.001/small_<b>") == "optim.lr=<wbr>0.001/<wbr>small_<wbr>&lt;b&gt;"
