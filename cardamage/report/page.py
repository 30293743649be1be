"""Writing a report: a page that works offline, its figures, tables as CSV, and a summary.

Everything is rendered in memory first; the page itself is published last, so a folder with an
``index.html`` holds a whole report.
"""

import base64
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from cardamage.errors import CLOSED, RunError, plain
from cardamage.evaluation import intervals as statistics
from cardamage.report import wording
from cardamage.report.pictures import Drawing, jpeg
from cardamage.runs.stages import now
from cardamage.runs.tables import Row, write_table
from cardamage.runs.usage import energy_words
from cardamage.system.files import write_bytes, write_text
from cardamage.version import __version__

_TEMPLATES = PackageLoader("cardamage.report", "templates")


@dataclass(frozen=True)
class Report:
    """A rendered report.

    Attributes:
        figures: by name, without suffix: written as PNG and, where drawn, as SVG.
        tables: CSV files by name, without suffix; none is without rows.
    """

    page: str
    summary: str
    figures: dict[str, Drawing]
    tables: dict[str, Sequence[Row]]


def render(
    kind: str,
    context: dict[str, Any],
    figures: dict[str, Drawing],
    tables: dict[str, Sequence[Row]] | None = None,
) -> Report:
    """Fill the templates of one kind of report.

    Args:
        kind: ``run`` or ``comparison``.
        figures: to lie beside the page, by name without suffix.
        tables: CSV files, likewise; one without rows is left out.
    """
    tables = {name: rows for name, rows in (tables or {}).items() if rows}
    beside = [
        "summary.md",
        *(f"{name}.csv" for name in tables),
        *(f"{name}.{form}" for name, drawing in figures.items() for form in drawing.files()),
    ]
    page = render_page(kind, {**context, "beside": beside})
    return Report(page, render_markdown(f"{kind}.md", context), figures, tables)


def render_markdown(template: str, context: dict[str, Any]) -> str:
    """Fill a template of Markdown, in which every foreign text goes through a filter."""
    return _markdown().get_template(template).render(**_shared(), **context)


def render_page(kind: str, context: dict[str, Any]) -> str:
    """Fill the template of one kind of page: as :func:`render`, or ``index``."""
    html = _html()
    scripts = ("page.js", "index.js" if kind == "index" else "gallery.js")
    script = "".join(_TEMPLATES.get_source(html, name)[0] for name in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = html.get_template(f"{kind}.html").render(
        **_shared(),
        **context,
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=digest,
    )
    return page.replace("<!--contents-->", _contents(page))


@cache
def _markdown() -> Environment:
    """The templates of Markdown; each is translated once, however many reports are made."""
    markdown = Environment(
        loader=_TEMPLATES,
        autoescape=False,  # noqa: S701 - Markdown; every name goes through the filter "md"
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    markdown.filters.update(_FILTERS, md=escape_markdown, code=code_span, plain=plain)
    return markdown


@cache
def _html() -> Environment:
    """The templates of pages, likewise."""
    html = Environment(
        loader=_TEMPLATES,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html.filters.update(_FILTERS, breakable=breakable)
    html.globals["definitions"] = wording.DEFINITIONS
    return html


def _unless_unknown(write: Callable[[Any], str]) -> Callable[[Any], str]:
    """The same, and a dash for None."""
    return lambda value: wording.UNDEFINED if value is None else write(value)


def _contents(page: str) -> str:
    """Links to the headed sections of a page; their text is escaped already."""
    headings = re.findall(r'<h2 id="(\w+)">(.*?)</h2>', page)[1:]  # behind the answer
    items = "".join(f'<li><a href="#{place}">{text}</a></li>' for place, text in headings)
    return f'<nav class="contents" aria-label="Contents"><ul>{items}</ul></nav>'


def address(page: Path, folder: Path) -> str:
    """A link to a page as seen from a folder, whatever links of the disk lead to either."""
    return quote(os.path.relpath(page.resolve(), folder.resolve()))


def publish(report: Report, folder: Path) -> Path:
    """Write a report; returns the path of its page.

    Raises:
        RunError: the folder cannot be written.
    """
    page = folder / "index.html"
    try:
        for name, drawing in report.figures.items():
            for kind, content in drawing.files().items():
                write_bytes(folder / f"{name}.{kind}", content)
        for name, rows in report.tables.items():
            write_table(folder / f"{name}.csv", rows)
        write_text(folder / "summary.md", report.summary)
        write_text(page, report.page)
    except CLOSED as error:
        raise RunError(
            f"{folder}: the report cannot be written ({error.strerror}); choose another --out"
        ) from None
    return page


def escape_markdown(value: object) -> str:
    """Text that Markdown shows as it is, on one line: also inside a table, and never as HTML."""
    text = plain(" ".join(str(value).split()))
    return re.sub(r"([\\`*_\[\]<>|&~#])", r"\\\1", text)


def breakable(text: str) -> Markup:
    """A name that a narrow table breaks behind its signs, rather than in the middle of a word."""
    return Markup(re.sub(r"([_=/])", r"\1<wbr>", str(escape(text))))  # noqa: S704 - is escaped


def code_span(value: str) -> str:
    """Text as Markdown's code on one line, behind more backticks than it has in a row."""
    text = plain(value)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def _shared() -> dict[str, Any]:
    """What every template may show."""
    return {
        "version": __version__,
        "made": now().replace("T", " ").replace("+00:00", " UTC"),
        "replicates": statistics.REPLICATES,
        "undefined": wording.UNDEFINED,
    }


def _data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


_FILTERS: dict[str, Callable[..., str]] = {
    "score": wording.score,
    "named": wording.title,
    "energy": _unless_unknown(energy_words),
    "signed": wording.signed,
    "percent": wording.percent,
    "interval": wording.interval,
    "in_percent": wording.in_percent,
    "interval_in_percent": wording.interval_in_percent,
    "duration": _unless_unknown(wording.duration),
    "bytes": _unless_unknown(wording.bytes_of),
    "rate": _unless_unknown("{:.1f}".format),
    "thousands": _unless_unknown("{:,}".format),
    "p_value": wording.p_value,
    "data_uri": lambda png: _data_uri(png, "image/png"),
    "jpeg_uri": lambda image: _data_uri(jpeg(image), "image/jpeg"),
}
