"""The page about a bundle: the verdict first, then what is there, what is missing, and how to check all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from markupsafe import Markup

from migrate.bundle import layout
from migrate.number_text import count_words, list_words
from migrate.report.facts import SHOWN_BARS, SHOWN_TABLES, Contents, Facts, SourceFacts, gather, most
from migrate.report.render import get_template, render

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
_TEMPLATE = "bundle.html"
_SHOWN = {"tables": SHOWN_TABLES, "bars": SHOWN_BARS, "check": 50, "events": 200, "not_taken": 200}
_TITLE_NAMES = 4
_OTHERS = Markup("<i>all others</i>")


def prepare_page() -> None:
    """Load the template, so that ``page`` takes less: it may be loaded while something else is waited for."""
    get_template(_TEMPLATE)


def sealed_page(contents: Contents) -> bytes:
    """Return the page that is sealed into a bundle: the same bytes for the same contents."""
    return page(gather(contents))


def page(of: Facts) -> bytes:
    """Return the page, UTF-8."""
    names = [source.reconciliation.name for source in of.sources]
    title = of.info.case.name if of.info.case else f"Bundle of {list_words(names, _TITLE_NAMES)}"
    values = {
        "title": title,
        "bundle": of,
        "commands": _commands(of.sources),
        "shown": _SHOWN,
        "layout": layout,
        "table_bars": _table_bars,
        "prefix_bars": _prefix_bars,
        "missing": _missing,
        "position": _position,
        "to_deadline": list(_to_deadline(of)),
    }
    return render(_TEMPLATE, values)


def _to_deadline(of: Facts) -> Iterator[tuple[str, float]]:
    """Yield what happened, and how many seconds before the deadline; negative where it was later. Nothing where either
    is not known.
    """
    later, names = of.later, {source.reconciliation.name for source in of.sources}
    moments = [("sealed", of.info.sealed)]
    if later.arrived:
        moments.append(("lay at its location", later.arrived))
    if names and names <= later.compared.keys():
        moments.append(("up and compared", max(later.compared[name] for name in names)))
    for what, moment in moments:
        try:
            deadline = datetime.fromisoformat(of.info.case.deadline if of.info.case else "")
            yield what, (deadline - datetime.fromisoformat(moment)).total_seconds()
        except (ValueError, TypeError):
            return


def _table_bars(source: SourceFacts) -> list[tuple[str, int]]:
    sums: dict[str | None, int] = {row.full_name: row.size_bytes for row in source.tables}
    return [(_OTHERS if label is None else label, size) for label, size in most(sums)]


def _prefix_bars(source: SourceFacts) -> list[tuple[str, int]]:
    without = Markup("<i>keys without a slash</i>")
    return [(_OTHERS if label is None else label or without, size) for label, size in source.prefixes]


def _missing(source: SourceFacts) -> int:
    return sum(
        count
        for disposition, count in source.reconciliation.dispositions.items()
        if disposition != "exported"
    )


def _position(position: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return what a position says, for people."""
    known = ((key, value) for key, value in sorted(position.items()) if value not in ("", None, [], {}))
    return [(key.replace("_", " "), _plain(value)) for key, value in known]


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in sorted(value.items()))
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        return f"{value[:10]} {value[11:19]} UTC"
    return count_words(value) if type(value) is int else str(value)


def _commands(sources: Sequence[SourceFacts]) -> Iterator[str]:
    yield "# every byte"
    yield "sha256sum --strict --quiet -c tagmanifest-sha256.txt manifest-sha256.txt"
    yield "# the same and more, by the Library of Congress"
    yield "bagit.py --validate ."
    yield "# what is there"
    yield "duckdb -c \"SELECT source, schema, name, items, digest FROM 'data/catalog.parquet'\""
    for source in sources:
        first = next((row for row in source.tables if row.items and row.directory), None)
        if first is not None:
            files = f"data/{source.reconciliation.name}/{first.directory}/*.parquet"
            yield f"# the rows of one table: it should say {first.items}"
            yield f"duckdb -c \"SELECT count(*) FROM '{files}'\""
        if source.prefixes:
            yield f"# the objects of {source.reconciliation.name}"
            index = f"data/{source.reconciliation.name}/index/*.parquet"
            yield f"duckdb -c \"SELECT key, size, sha256, pack FROM '{index}' LIMIT 10\""
    yield "# with moveout: every byte, every object, every value"
    yield "moveout verify . --level full"
