"""A page as a browser reads it."""

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Page(HTMLParser):
    """What a browser would make of the page."""

    text: str = ""
    elements: list = field(default_factory=list)
    open: list = field(default_factory=list)

    def __post_init__(self):
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "rect", "polygon"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data


def parse(data: bytes) -> Page:
    page = Page()
    page.feed(data.decode())
    page.close()
    assert page.open == []
    return page


ELEMENTS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "h2",
        "h3",
        "p",
        "div",
        "dl",
        "dt",
        "dd",
        "table",
        "thead",
    ),
    *(
        "tbody",
        "tr",
        "th",
        "td",
        "span",
        "bdi",
        "i",
        "strong",
        "ul",
        "li",
        "figure",
        "figcaption",
        "svg",
        "rect",
    ),
    *("polygon", "pre", "code", "footer", "time", "details", "summary", "a"),
}


def assert_harmless(found: Page) -> None:
    for tag, attributes in found.elements:
        assert tag in ELEMENTS, tag
        assert not [each for each in attributes if each.startswith("on") or each in {"src", "style"}]
        assert attributes.get("href", "#source-").startswith("#source-"), attributes  # within the page
    policy = [a["content"] for t, a in found.elements if t == "meta" and "http-equiv" in a]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
