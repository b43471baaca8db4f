"""Parsing HTML pages: elements, tables, and whether each element is properly closed."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "input", "link", "base"}


class Page(HTMLParser):
    """The elements of a page, its tables by caption, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text: list[str] = []
        self.headings: list[int] = []
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(source)
        self.close()
        assert self._open == [], "elements that are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in {"td", "th"}:
            self._rows[-1].append("")
        elif tag in {"h1", "h2", "h3"}:
            self.headings.append(int(tag[1]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"{tag} is closed where another element is open"
        if tag == "table":
            assert self._caption not in self.tables, "two tables have one caption"
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if "caption" in self._open:
            self._caption += data
        elif {"td", "th"} & set(self._open):
            self._rows[-1][-1] += data

    def rows(self, caption: str) -> list[list[str]]:
        """Return the rows of the table whose caption begins with this text, without its heading."""
        (found,) = [rows for name, rows in self.tables.items() if name.startswith(caption)]
        return found[1:]
