"""The page in a real Chromium: no complaint, no request, no hostile string that does anything, readable everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from audit_logs import Site
from browsers import chromium
from flask_secure_ml.observe.report.page import Facts, render
from flask_secure_ml.observe.report.tables import Expiring, shown
from flask_secure_ml.testing import FakeClock
from report_logs import figures_from, figures_of, hostile, lines_of_site, outcome, site_with

pytestmark = pytest.mark.slow
NOW = 1_800_000_000
DAY = 86_400
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1440, "height": 900}
SCREENS = [
    pytest.param(screen, scheme, id=f"{name}_{scheme}")
    for name, screen in (("phone", PHONE), ("desk", DESK))
    for scheme in ("light", "dark")
]

CONTRASTS = """
() => {
  const numbers = (color) => color.match(/[0-9.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = numbers(color).slice(0, 3).map((each) => each / 255)
      .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = getComputedStyle(each).backgroundColor;
      if (numbers(color)[3] !== 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const ratio = (one, other) => {
    const [high, low] = [light(one), light(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const texts = [], shapes = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("title, desc, style")) continue;
    const style = getComputedStyle(element);
    const color = element.ownerSVGElement ? style.fill : style.color;
    texts.push([ratio(color, ground(element)), element.outerHTML.slice(0, 80)]);
  }
  const card = getComputedStyle(document.querySelector(".card")).backgroundColor;
  for (const element of document.querySelectorAll(".f0, .f1, .f2, .f3, .f4, .f5, .f6, .f7, polyline")) {
    const style = getComputedStyle(element);
    const color = element.tagName === "polyline" ? style.stroke : style.fill;
    shapes.push([ratio(color, card), element.outerHTML.slice(0, 80)]);
  }
  return {texts, shapes};
}
"""

OVERFLOWING = """
() => [...document.querySelectorAll("body *")].filter((each) => {
  if (each.closest("svg, .scroll")) return false;
  const box = each.getBoundingClientRect();
  return box.width > 0 && (box.left < -0.5 || box.right > innerWidth + 0.5);
}).map((each) => each.outerHTML.slice(0, 120))
"""

CUT = """
() => [...document.querySelectorAll(".name, .scroll:not([tabindex])")]
  .filter((each) => each.scrollWidth > each.clientWidth + 1).map((each) => each.outerHTML.slice(0, 120))
"""

OVERLAPPING = """
() => [...document.querySelectorAll(".plot")].flatMap((plot) => {
  const boxes = [...plot.querySelectorAll("text")].map((each) => each.getBoundingClientRect())
    .filter((each) => each.width).sort((one, other) => one.left - other.left);
  const close = boxes.slice(1).filter((each, number) => each.left < boxes[number].right + 2);
  return close.map(() => plot.textContent.slice(0, 60));
})
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as launched:
        yield launched


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open a page from a file; a complaint of the browser or a request of the page fails the test."""
    contexts: list[Any] = []
    said: list[str] = []

    def open_page(source: str, **options: Any) -> Any:
        file = tmp_path / "report.html"
        file.write_text(source, encoding="utf-8")
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda each: said.append(each.text))
        page.on("pageerror", lambda each: said.append(str(each)))
        page.on("dialog", lambda each: said.append(each.message))
        page.on("request", lambda each: said.append(each.url) if each.url != file.as_uri() else None)
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return site_with(tmp_path_factory.mktemp("site"), FakeClock(), 2000, 7.0 * DAY)


@pytest.fixture(scope="module")
def report(site: Site) -> str:
    expiring = [Expiring("4fGh2kLm9QrS", "mobile app", NOW + 3 * DAY, NOW - DAY)]
    return render(figures_of(site), Facts(NOW, "Audit of digits", site.verify(), expiring, 30))


def hostile_page() -> str:
    records: list[dict[str, Any]] = []
    for text in filter(None, hostile().values()):
        names = ("client", "principal", "endpoint", "plan", "model", "code", "network")
        records.append({**dict.fromkeys(names, text), "status": 429, "reason": f"x is over {text}"})
        records.append({"client": text, "model": text, "endpoint": text, "status": 200, "rows": 9, "duration_us": 50})
        records += [
            {"action": each, "message": text, "signal": text, "subject": text}
            for each in ("anomaly", "block", "outage", text)
        ]
        records.append({"action": "start", "origin": text, "version": text, "pid": 1})
    expiring = [Expiring(text, text, NOW + DAY, None) for text in hostile().values()]
    return render(figures_from(*records), Facts(NOW, hostile()["long"], None, expiring, 30))


@pytest.mark.parametrize(("screen", "scheme"), SCREENS)
def test_readable_everywhere(opened: Callable[..., Any], report: str, screen: Any, scheme: str) -> None:
    """Text has a contrast of at least 4.5 and shapes one of 3; nothing is cut off or overlaps."""
    page = opened(report, viewport=screen, color_scheme=scheme)
    for each in page.locator("summary").all():
        each.click()
    found = page.evaluate(CONTRASTS)
    assert len(found["texts"]) > 300
    assert len(found["shapes"]) > 40
    assert [each for each in found["texts"] if each[0] < 4.5] == []
    assert [each for each in found["shapes"] if each[0] < 3] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(OVERFLOWING) == []
    assert page.evaluate(OVERLAPPING) == []
    assert page.evaluate(CUT) == []


def test_the_schemes_differ(opened: Callable[..., Any], report: str) -> None:
    """The ground is dark where people want it so, and light on paper."""
    ground = "getComputedStyle(document.body).backgroundColor"
    page = opened(report, color_scheme="dark")
    assert page.evaluate(ground) == "rgb(18, 21, 27)"
    page.emulate_media(media="print")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(27, 34, 48)"
    assert not page.locator("nav").is_visible()
    page = opened(report, color_scheme="light")
    assert page.evaluate(ground) == "rgb(246, 247, 249)"


@pytest.mark.parametrize(("screen", "scheme"), SCREENS[::3])
def test_hostile_strings_do_nothing(opened: Callable[..., Any], screen: Any, scheme: str) -> None:
    """No script runs, nothing is fetched, no element is added, and long names are wrapped."""
    page = opened(hostile_page(), viewport=screen, color_scheme=scheme)
    for each in page.locator("summary").all():
        each.click()
    assert page.title() == hostile()["long"]
    added = "script, img, iframe, form, link, base, object, a:not(nav a), style:not(head style), [onload], [onerror]"
    assert page.locator(added).count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(OVERFLOWING) == []
    assert page.evaluate(CUT) == []
    shown_names = {each.strip() for each in page.locator("bdi").all_text_contents()}
    for name in ("script", "attribute", "template", "format", "entity", "direction", "nul", "style_end"):
        assert shown(hostile()[name]) in shown_names


def test_marks_do_not_leave_their_line(opened: Callable[..., Any]) -> None:
    """A pile of accents, and right-to-left letters, change neither the height of a row nor the order of its numbers."""
    texts = ["plain", hostile()["accents"], hostile()["right_to_left"]]
    page = opened(render(figures_from(*({"client": each} for each in texts)), Facts(NOW)), viewport=DESK)
    rows = page.locator("table", has_text="Most requests").locator("tbody tr")
    assert rows.count() == 3
    heights = [row.bounding_box()["height"] for row in rows.all()]
    assert max(heights) < 2.2 * min(heights)
    assert {row.locator("td").first.inner_text() for row in rows.all()} == {"1"}


def test_the_bars_are_what_was_counted(opened: Callable[..., Any], site: Site, report: str) -> None:
    """The area of each series, measured on the screen, is its share of all requests in the log."""
    page = opened(report, viewport=DESK)
    heights: dict[str, float] = {}
    plot = page.locator("svg[aria-labelledby^='chart-requests-title']")
    for bar in plot.locator("rect[fill]").all():
        box = bar.bounding_box()
        fill = bar.get_attribute("fill")
        heights[fill] = heights.get(fill, 0) + box["height"]
    requests = [outcome(each) for each in lines_of_site(site) if each["action"] == "request"]
    for number, name in enumerate(("accepted", "rejected", "failed")):
        share = heights[f"url(#p{number})"] / sum(heights.values())
        assert share == pytest.approx(requests.count(name) / len(requests), abs=0.01)


def test_without_a_pointer(opened: Callable[..., Any], report: str) -> None:
    """The tables beside the charts open with the keyboard, and wide tables are reached and scrolled with it."""
    page = opened(report, viewport=PHONE)
    summary = page.locator("summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("details[open] table").first.is_visible()
    region = page.get_by_role("region", name="Model versions")
    region.focus()
    assert region.evaluate("(each) => each === document.activeElement && each.scrollWidth > each.clientWidth")
    assert page.get_by_role("img", name="Latency of accepted requests").count() == 1
    assert page.get_by_role("table", name="Most requests").get_by_role("rowheader").count() >= 4


@pytest.mark.parametrize(
    ("seconds", "count"), [(1, 1), (3000, 60), (86_400, 60), (30 * 86_400, 60), (800 * 86_400, 60)]
)
def test_each_range_has_its_labels(
    opened: Callable[..., Any], tmp_path: Path, clock: FakeClock, seconds: int, count: int
) -> None:
    """From one request to years: labels along the axis that do not overlap, on both screens."""
    site = site_with(tmp_path / "log", clock, count, seconds)
    source = render(figures_of(site), Facts(NOW))
    for screen in (PHONE, DESK):
        page = opened(source, viewport=screen)
        assert page.evaluate(OVERLAPPING) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        if count > 1:
            labels = page.locator("svg[aria-labelledby^='chart-requests-title'] text:visible").count()
            assert labels >= 2
