"""The pages of the documentation, and what a test needs of their Markdown."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ALL = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
"""Every page."""


def text_of(page: str) -> str:
    """Return a page's text; ``page`` is relative to the checkout."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)


def without_code(text: str) -> str:
    """Return the text without fenced and indented blocks, comments and front matter."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return re.sub(r"^    .*$", "", text, flags=re.MULTILINE)
