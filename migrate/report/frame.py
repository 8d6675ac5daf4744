"""What every page is put into: no script, nothing from elsewhere, whatever a name in the bundle says."""

from __future__ import annotations

from collections.abc import Iterable

from migrate.report.markup import Html, joined, tag
from migrate.report.style import STYLE

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def document(title: str, body: Iterable[Html]) -> bytes:
    """Return a whole page, UTF-8."""
    head = joined(
        [
            Html('<meta charset="utf-8">'),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
            Html('<meta name="robots" content="noindex">'),
            Html('<meta name="referrer" content="no-referrer">'),
            tag("title", title),
            tag("style", Html(STYLE)),
        ],
        "\n",
    )
    inner = joined(body, "\n")
    text = f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{inner}\n</body>\n</html>\n'
    return text.encode("utf-8", "backslashreplace")
