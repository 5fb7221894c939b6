"""The report as a real browser shows it: on a desk and on a telephone, light, dark and on paper, for eyes and for screen readers."""

import struct
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.resources import files
from pathlib import Path

import browser
import pytest
from browser import Page
from integration.report_home import ill, make_marts

from monitoring.report.facts import DeclaredSource, House
from monitoring.report.gather import gather
from monitoring.report.page import document
from warehouse import clock

BROWSER = browser.found()
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser is installed: none of {', '.join(browser.NAMES)}")
HOUSE = House(
    [DeclaredSource(name, "hourly", timedelta(hours=6), True) for name in ("postgres", "stripe")],
    backups={"warehouse": timedelta(days=2)},
    drills={"warehouse": timedelta(days=7)},
    pages={"docs/metrics/revenue.md": "# Revenue\n`daily_revenue`: a row a day"},
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    assert BROWSER is not None
    with browser.opened(BROWSER, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a home in which much is wrong, some of it hostile."""
    made = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        from warehouse import settings

        def setting(name: str, value: str | None) -> None:
            patch.setenv(name, value or "")
            settings.reload()

        setting("WAREHOUSE_HOME", str(made / "home"))
        ill(setting)
        (made / "report.html").write_text(document(gather(HOUSE, clock.now()), HOUSE))
    settings.reload()
    return made / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_is_whole_on_each_screen(page: Page, file: Path, width: int, scheme: str, tmp_path: Path) -> None:
    page.complaints.clear()
    page.like(scheme)
    page.resize(width)
    page.show(file.as_uri())
    assert page.requests == [file.as_uri()]
    assert page.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    said = page.evaluate("document.body.innerText")
    assert "things are wrong" in said
    for text in ("Run failed: raw_stripe", "Freshness", "Incidents", "Numbers", "Which number is right?", "9 h", "<script>alert(1)</script>"):
        assert text in said
    assert page.evaluate("[...document.querySelectorAll('h1, h2')].every(one => one.getBoundingClientRect().height > 10)")
    boxes = page.evaluate("[...document.querySelectorAll('svg.plot')].map(one => one.getBoundingClientRect()).map(box => [box.width, box.height])")
    assert len(boxes) == 9
    assert all(wide > 200 and high > 100 for wide, high in boxes)
    tall = page.evaluate("[...document.querySelectorAll('svg.plot .line')].map(one => one.getBoundingClientRect().height)")
    assert len(tall) == 5
    assert all(height > 5 for height in tall)
    rows = _rows(page.picture(tmp_path / "whole.png"))
    assert rows > 40, "the screenshot is blank"


def test_it_fits_the_standards_of_accessibility(page: Page, file: Path) -> None:
    """axe-core's rules, contrast in both colour schemes. Of what stands there many times a few are looked at: contrast is a slow rule."""
    axe = (files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")
    many = "['tbody tr:nth-child(n+3)', '.node:nth-of-type(n+8)', '.edge:nth-of-type(n+8)', 'rect.succeeded:nth-of-type(n+8)']"
    for scheme, options in (("light", "{resultTypes: ['violations']}"), ("dark", "{resultTypes: ['violations'], runOnly: ['color-contrast']}")):
        page.like(scheme)
        page.resize(1280)
        page.show(file.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        page.evaluate(f"{many}.forEach(kind => document.querySelectorAll(kind).forEach(one => one.remove()))")
        page.evaluate(f"{axe}; true")
        found = page.evaluate(f"axe.run({options}).then(all => all.violations.map(one => [one.id, one.nodes[0].html.slice(0, 200)]))")
        assert found == [], scheme


def test_it_can_be_printed(page: Page, file: Path) -> None:
    page.show(file.as_uri())
    paper = page.ask("Page.printToPDF", printBackground=False)["data"]
    assert len(paper) > 20_000
    page.like("dark", media="print")  # paper is white, whatever the screen is like
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(23, 24, 28)"
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    page.like("light")


def test_the_browser_itself_refuses_what_the_page_does_not_need(page: Page, file: Path, tmp_path: Path) -> None:
    """Were something smuggled in after all, the page's own policy would stop it."""
    evil = tmp_path / "evil.html"
    smuggled = '<img src="http://127.0.0.1:9/x.png"><script>document.title = "owned"</script><p style="position:fixed">x</p>'
    evil.write_text(file.read_text().replace("<main", f"{smuggled}<main", 1))
    page.complaints.clear()
    page.show(evil.as_uri())
    assert page.evaluate("document.title") != "owned"
    assert sum("Content Security Policy" in one for one in page.complaints) == 3
    assert page.evaluate("getComputedStyle(document.querySelector('p[style]')).position") == "static"


def test_a_fallen_day_is_marked(page: Page, setting: Callable[[str, str | None], None], tmp_path: Path) -> None:
    setting("WAREHOUSE_NOW", "2026-03-01T12:00:00Z")
    make_marts(drop=True)
    (tmp_path / "report.html").write_text(document(gather(HOUSE, clock.now()), HOUSE))
    page.show((tmp_path / "report.html").as_uri())
    marked = "[...document.querySelectorAll('figure')].map(one => one.querySelectorAll('.unusual').length)"
    titles = page.evaluate("[...document.querySelectorAll('figure strong')].map(one => one.innerText)")
    counts = dict(zip(titles, page.evaluate(marked), strict=True))
    assert counts["Rows per day, EUR"] == counts["Revenue per day, EUR"] == 1
    assert counts["Rows per day, USD"] == 0


def _rows(png: bytes) -> int:
    """How many different rows a PNG of 8-bit RGB(A) has: a blank one has one or two."""
    at, data, width, channels = 8, b"", 0, 3
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            width, channels = struct.unpack(">I", body[:4])[0], {2: 3, 6: 4}[body[9]]
        data += body if kind == b"IDAT" else b""
        at += 12 + size
    raw, step = zlib.decompress(data), width * channels + 1
    return len({raw[row * step : (row + 1) * step] for row in range(len(raw) // step)})
