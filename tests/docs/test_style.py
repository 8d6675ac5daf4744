"""Pages that users read have short sentences and short paragraphs."""

import re

import pytest

from tests.docs.pages import ROOT, text_of, without_code

PAGES = [
    "README.md",
    "docs/ARCHITECTURE.md",
    "docs/tutorial.md",
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs/guides").glob("*.md")),
]
AVERAGE_WORDS = 18
PARAGRAPH_WORDS = 80
README_LINES = 150
ARCHITECTURE_WORDS = 2_500
CHANGELOG_LINES = 80
_ITEM = re.compile(r"^\s*(?:[-*]|\d+\.) ")
_CODE = re.compile(r"`[^`]*`")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_END = re.compile(r"[.!?](?:[*\")]*)(?=\s|$)")


def paragraphs(text):
    """Paragraphs and list items, without headings, tables and code."""
    current = []
    for line in [*without_code(text).splitlines(), ""]:
        ends = not line.strip() or line.startswith(("#", "|"))
        if (ends or _ITEM.match(line)) and current:
            yield " ".join(current)
            current = []
        if not ends:
            current.append(_ITEM.sub("", line).strip())


def prose(paragraph):
    """A paragraph with a word for each piece of code, and links by their text."""
    return _LINK.sub(r"\1", _CODE.sub("code", paragraph))


def sentences(text):
    for paragraph in paragraphs(text):
        yield from (part for part in _END.split(prose(paragraph)) if re.search(r"\w", part))


def average(page):
    lengths = [len(sentence.split()) for sentence in sentences(text_of(page))]
    return sum(lengths) / len(lengths)


@pytest.mark.parametrize("page", PAGES)
def test_sentences_are_short(page):
    assert average(page) <= AVERAGE_WORDS


@pytest.mark.parametrize("page", PAGES)
def test_paragraphs_are_short(page):
    longest = max(paragraphs(text_of(page)), key=lambda paragraph: len(prose(paragraph).split()))
    assert len(prose(longest).split()) <= PARAGRAPH_WORDS, longest


def test_the_measure_counts_words_of_sentences():
    text = "# A heading\n\nOne two three. Four `a b c` [five six](x.md)!\n\n- seven\n  eight.\n\n| no | table |\n"
    assert [len(sentence.split()) for sentence in sentences(text)] == [3, 4, 2]
    assert list(paragraphs(text))[1] == "seven eight."


def test_pages_keep_to_their_length():
    assert len(text_of("README.md").splitlines()) <= README_LINES
    assert len(text_of("docs/ARCHITECTURE.md").split()) <= ARCHITECTURE_WORDS
    assert len(text_of("CHANGELOG.md").splitlines()) <= CHANGELOG_LINES
