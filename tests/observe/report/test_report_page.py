"""The report page: its figures match the log, it loads nothing from elsewhere, and all values are escaped."""

from __future__ import annotations

import random
import re
from base64 import b64encode
from collections import Counter
from configparser import ConfigParser
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from audit_logs import Site
from flask_secure_ml.observe.audit.findings import Report
from flask_secure_ml.observe.report.page import Facts, render
from flask_secure_ml.observe.report.tables import Expiring, percent, shown
from flask_secure_ml.testing import FakeClock
from html_pages import Page
from report_logs import figures_from, figures_of, hostile, lines_of_site, outcome, site_with

NOW = 1_800_000_000
DAY = 86_400


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return site_with(tmp_path_factory.mktemp("site"), FakeClock(), 2000, 7.0 * DAY)


@pytest.fixture(scope="module")
def page(site: Site) -> Page:
    return Page(render(figures_of(site), Facts(NOW)))


def number(cell: str) -> int:
    return int(cell.replace(",", ""))


@pytest.mark.slow
def test_the_numbers_of_the_charts(page: Page, site: Site) -> None:
    """Each row of each chart's table equals a count of the log lines."""
    records = [each for each in lines_of_site(site) if each["action"] == "request"]

    def interval(record: dict[str, Any]) -> str:
        return f"{record['time'][:10]} {int(record['time'][11:13]) // 3 * 3:02d}:00"

    outcomes = Counter((interval(each), outcome(each)) for each in records)
    rows = page.rows("Requests; ")
    assert {
        (row[0], name): number(cell)
        for row in rows
        for name, cell in zip(("accepted", "rejected", "failed"), row[1:], strict=True)
    } == {(row[0], name): outcomes[row[0], name] for row in rows for name in ("accepted", "rejected", "failed")}
    assert sum(number(cell) for row in rows for cell in row[1:]) == len(records) == 2000
    codes = Counter((interval(each), each["code"]) for each in records if each["code"])
    (heading,) = [
        rows[0] for caption, rows in page.tables.items() if caption.startswith("Rejections and failures by reason")
    ]
    found = {
        (row[0], code): number(cell)
        for row in page.rows("Rejections and failures by reason")
        for code, cell in zip(heading[1:], row[1:], strict=True)
        if cell != "0"
    }
    assert found == codes


def test_the_numbers_of_the_tables(page: Page, site: Site) -> None:
    """Codes, clients and models."""
    records = [each for each in lines_of_site(site) if each["action"] == "request"]
    codes = Counter((each["code"], str(each["status"])) for each in records if each["code"])
    rows = page.rows("Rejections and failures by code")
    assert {(row[0], row[1]): number(row[2]) for row in rows} == codes
    assert [row[3] for row in rows] == [percent(number(row[2]), len(records)) for row in rows]
    clients = Counter(each.get("client") or f"{each['network']}network" for each in records)
    assert {row[0]: number(row[1]) for row in page.rows("Most requests")} == dict(clients.most_common(10))
    models = Counter(each["model"] for each in records if "model" in each)
    assert {row[0]: number(row[1]) for row in page.rows("Model versions")} == models


def test_the_structure(page: Page) -> None:
    """One title, headings in order, a caption for each table, unique ids, and links to parts that exist."""
    levels = page.headings
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(other <= one + 1 for one, other in pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        if tag == "a":
            assert str(attributes["href"]).removeprefix("#") in ids
        for name in ("aria-labelledby",):
            assert set(str(attributes.get(name) or "").split()) <= set(ids)
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or attributes.get("role") == "img" or "viewbox" in attributes
    assert "" not in page.tables
    assert len(page.tables) > 15


def test_nothing_comes_from_elsewhere(page: Page, site: Site) -> None:
    """No script, no link and no address; the policy allows the one style sheet by its digest."""
    tags = {tag for tag, _ in page.elements}
    assert (
        tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "use", "image", "input"} == set()
    )
    for _, attributes in page.elements:
        assert not {name for name in attributes if name.startswith("on")} | (
            {"src", "style", "srcset"} & set(attributes)
        )
    source = render(figures_of(site), Facts(NOW))
    assert "http://" not in source
    assert "https://" not in source
    assert "@import" not in source
    style = re.findall(r"<style>(.*?)</style>", source, re.DOTALL)
    assert len(style) == 1
    digest = b64encode(sha256(style[0].encode()).digest()).decode()
    (policy,) = [attributes["content"] for _, attributes in page.elements if "http-equiv" in attributes]
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def hostile_record(text: str) -> list[dict[str, Any]]:
    names = ("client", "principal", "endpoint", "plan", "model", "code", "reason", "network")
    return [
        {**dict.fromkeys(names, text), "status": 429, "reason": f"x is over {text}"},
        {"principal": text, "status": 200, "rows": 1, "model": text, "duration_us": 5},
        {"network": text, "status": 401, "code": text},
        {"action": "anomaly", "signal": text, "subject": text, "explanation": text},
        {"action": "block", "message": text},
        {"action": text or "x", "what": text},
        {"action": "start", "origin": text, "version": text, "pid": 1},
    ]


@pytest.mark.parametrize("name", hostile())
def test_hostile_strings(name: str) -> None:
    """They add no element and no attribute to the page, wherever they are, and are shown as they were written."""
    text = hostile()[name]
    facts = Facts(NOW, text, Report(), [Expiring(text, text, NOW + DAY, None)], 30)
    facts.verification.tampered("changed", text, text, 1)  # type: ignore[union-attr]
    page = Page(render(figures_from(*hostile_record(text)), facts))
    harmless = Page(
        render(
            figures_from(*hostile_record("harmless")), Facts(NOW, "harmless", facts.verification, facts.expiring, 30)
        )
    )
    if text:

        def kinds(found: Page) -> list[tuple[str, list[str]]]:
            return [(tag, sorted(attributes)) for tag, attributes in found.elements]

        assert kinds(page) == kinds(harmless)
    assert shown(text) in "".join(page.text)
    assert all(each.isprintable() or each == "\n" for each in "".join(page.text))


def test_accents_are_bounded() -> None:
    """Honest words keep theirs; of a pile two are left."""
    for word in ("Zo\u0308e", "Vie\u0323\u0302t", "\u0939\u093f\u0928\u094d\u0926\u0940", "שָׁלוֹם"):
        assert shown(word) == word
    assert shown("a\u0301\u0301\u0301\u0301") == "a\u0301\u0301\ufffd"


def banners(page: Page) -> list[str]:
    return [str(attributes["class"]) for tag, attributes in page.elements if tag == "section" and "class" in attributes]


def test_the_verification() -> None:
    """The result (valid, invalid or none) is stated at the top, with its findings."""
    figures = figures_from({})
    good = Report(records=5, streams=1, covered=3)
    good.notice("torn", "the last line is torn")
    page = Page(render(figures, Facts(NOW, verification=good)))
    said = "".join(page.text)
    assert banners(page) == ["banner good"]
    assert "Verified: the log is intact" in said
    assert "External checkpoints cover 3 leaves" in said
    assert "the last line is torn" in said
    bad = Report()
    for number_ in range(30):
        bad.tampered("changed", f"finding {number_}.", "s", number_)
    page = Page(render(figures, Facts(NOW, verification=bad)))
    said = "".join(page.text)
    assert banners(page) == ["banner bad"]
    assert "The log was modified" in said
    assert "30 findings. Do not rely on the numbers below." in said
    assert "finding 19." in said
    assert "finding 20." not in said
    assert "and 10 more" in said
    assert said.index("The log was modified") < said.index("Summary")
    page = Page(render(figures, Facts(NOW, verification=Report())))
    assert banners(page) == ["banner good"]
    assert "No external checkpoint was given" in "".join(page.text)
    page = Page(render(figures, Facts(NOW)))
    assert banners(page) == ["banner "]
    assert "The log was not verified" in "".join(page.text)


def test_what_is_missing() -> None:
    """Lost records, invalid lines and a torn line are stated at the top."""
    figures = figures_from({}, {"action": "gap", "lost": 1234})
    figures.skipped.lines, figures.skipped.torn = 3, 1
    page = Page(render(figures, Facts(NOW)))
    said = "".join(page.text)
    assert banners(page) == ["banner ", "banner bad", "banner bad", "banner "]
    assert "1,234 records could not be written" in said
    assert "3 lines of the log are not valid records" in said
    assert "The log ends with an incomplete record" in said


@pytest.mark.parametrize("records", [(), ({},), ({"action": "stop"},)], ids=["empty", "one_request", "one_event"])
def test_small_logs(records: tuple[dict[str, Any], ...]) -> None:
    """Each part states that it has no data."""
    page = Page(render(figures_from(*records), Facts(NOW)))
    said = "".join(page.text)
    assert ("No requests in this period." in said) == (records != ({},))
    assert "No requests were rejected in this period." in said
    assert ("From " in said) == bool(records)
    charts = [attributes for tag, attributes in page.elements if attributes.get("role") == "img"]
    assert len(charts) == len(records)


def test_credentials_that_expire() -> None:
    """In order of expiry; an unread source is not shown as empty."""
    expiring = [Expiring("k2", "later", NOW + 20 * DAY, None), Expiring("k1", "soon", NOW + DAY + 60, NOW - DAY)]
    page = Page(render(figures_from({}), Facts(NOW, expiring=expiring, days=30)))
    rows = page.rows("API keys that expire within 30 days")
    assert [row[:2] + row[3:4] for row in rows] == [["soon", "k1", "1"], ["later", "k2", "20"]]
    assert [row[4] for row in rows] == ["2027-01-14", "never"]
    assert "No API key expires within 7 days." in "".join(
        Page(render(figures_from({}), Facts(NOW, expiring=[], days=7))).text
    )
    assert "--expiring-days 30" in "".join(Page(render(figures_from({}), Facts(NOW))).text)


def test_estimates_are_ranges() -> None:
    """If callers were dropped, counts have both bounds, and omitted ones an upper bound."""
    dice = random.Random(5)
    clients = [f"c{number}" for number in range(9000)] + ["heavy"] * 60
    dice.shuffle(clients)
    figures = figures_from(*({"client": each} for each in clients))
    page = Page(render(figures, Facts(NOW)))
    rows = page.rows("Most requests")
    assert rows[0][0] == "heavy"
    low, _, high = rows[0][1].partition(" to ")
    assert number(low) <= 60 <= number(high or low)
    assert any(" to " in row[1] for row in rows)
    assert "each omitted one has at most" in "".join(page.text)
    assert "over " in "".join(page.text)


@pytest.mark.parametrize(
    ("part", "whole", "written"),
    [
        (0, 0, "0.0 %"),
        (0, 9, "0.0 %"),
        (1, 10**6, "< 0.1 %"),
        (1, 2, "50.0 %"),
        (10**6 - 1, 10**6, "> 99.9 %"),
        (3, 3, "100.0 %"),
    ],
)
def test_shares(part: int, whole: int, written: str) -> None:
    """A few are not written as none, and nearly all not as all."""
    assert percent(part, whole) == written


@pytest.mark.parametrize("names", [7, 8, 9, 20, 64, 65, 90])
def test_many_names_are_cut_to_the_greatest(names: int) -> None:
    """A chart has eight series, one of them for all others; each value is counted once."""
    figures = figures_from(*({"status": 400, "code": f"c{number % names}"} for number in range(300)))
    page = Page(render(figures, Facts(NOW)))
    (row,) = page.rows("Rejections and failures by reason")
    assert len(row) == 1 + min(names, 8)
    assert sum(map(number, row[1:])) == 300


def test_the_files_are_in_the_package() -> None:
    """The template and the style sheet are installed with the package."""
    setup = ConfigParser()
    setup.read(Path(__file__).parents[3] / "setup.cfg", encoding="utf-8")
    assert "observe/report/templates/*" in setup["options.package_data"]["flask_secure_ml"]


def test_the_size_of_a_page(site: Site) -> None:
    """It is small enough for mail, whatever the size of the log."""
    assert len(render(figures_of(site), Facts(NOW)).encode()) < 400_000
