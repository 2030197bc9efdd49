"""Pages of reports as tests read them."""

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

from report_example import Line, example_lines

from inmaterio.devices.costs import CostTable
from inmaterio.experiments.report import write_comparison_report

VOID = {"meta", "br", "link", "img", "input", "hr", "col"}


class Page(HTMLParser):
    """Checks that tags are balanced and collects text, attributes, tables."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: Counter[str] = Counter()
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without a start"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data + " "

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def find(self, *cells: str) -> list[list[str]]:
        """Table rows in which each of these stands in some cell."""
        return [row for row in self.rows if all(any(one in cell for cell in row) for one in cells)]


def page_of(out: Path, costs: CostTable) -> Page:
    return Page(write_comparison_report(out, costs).read_text(encoding="utf-8"))


def two_lines() -> list[Line]:
    """One rule on the imperfect substrate and the digital baseline."""
    lines = example_lines()
    return [next(line for line in lines if line.substrate == "hopfield-imperfect"), lines[-1]]
