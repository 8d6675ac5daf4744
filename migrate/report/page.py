"""The page, put together: the verdict first, then what is there, what is missing, and how to check all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from migrate.bundle import layout
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.table_digests import TableDigest
from migrate.number_text import bytes_words, count_words
from migrate.report import plots
from migrate.report.facts import SHOWN_BARS, SHOWN_TABLES, Facts, Later, SourceFacts, most
from migrate.report.frame import document
from migrate.report.markup import Html, facts, joined, name, table, tag
from migrate.report.plots import moment

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
_SHOWN_CHECK = 50
_SHOWN_EVENTS = 200


def page(of: Facts) -> bytes:
    """Return the page, UTF-8."""
    title = f"Bundle of {', '.join(source.scope.name for source in of.sources)}"
    return document(title, _body(of, title))


def _body(of: Facts, title: str) -> Iterator[Html]:
    info = of.info
    yield tag("h1", title)
    yield tag("p", "What left a host, how complete it is, and how anyone can check that.", class_="soft")
    yield _verdict(of)
    yield facts(
        [
            ("Sealed", moment(info.sealed)),
            ("Begun", moment(info.created)),
            ("Bundle", tag("span", name(info.id), class_="digest")),
            ("Files", count_words(of.payload[1])),
            ("Size", f"{bytes_words(of.payload[0])} ({count_words(of.payload[0])} bytes)"),
            ("Made by", name(info.software)),
            *((("Continues", name(", ".join(info.continues))),) if info.continues else ()),
        ]
    )
    if len(of.sources) > 1:
        yield _overview(of.sources)
    if info.pace is not None and len(info.pace.size_bytes) > 2:
        yield plots.rate(info.pace)
    yield from _later(of.later)
    for source in of.sources:
        yield from _source(source, of.later)
    yield from _how(of)


def _verdict(of: Facts) -> Html:
    findings = sum(len(check.findings) for check in of.later.checks)
    if of.info.complete:
        said = "Everything that was counted at the sources is in this bundle; what was left out on purpose is named."
        first = tag("div", tag("strong", "Complete. "), said, class_="verdict")
    else:
        reasons = [(source.scope.name, reason) for source in of.sources for reason in source.scope.reasons]
        items = (tag("li", name(source), ": ", name(reason)) for source, reason in reasons)
        first = tag("div", tag("strong", "Incomplete."), tag("ul", joined(items)), class_="verdict bad")
    without = sum(len(check.left_out) for check in of.later.checks)
    if not findings and not without:
        return first
    words = f"{count_words(findings)} {'finding' if findings == 1 else 'findings'} after the seal. "
    if not findings:
        words = f"{count_words(without)} left out by a restore. "
    found = tag("div", tag("strong", words), "See below.", class_="verdict bad")
    return joined([found, first])


def _overview(sources: Sequence[SourceFacts]) -> Html:
    rows = [
        (
            name(source.scope.name),
            name(source.scope.url),
            count_words(source.scope.totals.items),
            bytes_words(source.scope.totals.size_bytes),
            _state(complete=source.scope.complete),
        )
        for source in sources
    ]
    return table(["Source", "From", "Items", "Bytes read", ""], rows, numbers=(2, 3))


def _state(*, complete: bool) -> Html:
    return tag("span", "complete", class_="good") if complete else tag("span", "incomplete", class_="bad")


def _source(source: SourceFacts, later: Later) -> Iterator[Html]:
    scope = source.scope
    yield tag("h2", name(scope.name), " ", _state(complete=scope.complete))
    gone = {what: count for what, count in scope.dispositions.items() if what != "exported" and count}
    yield facts(
        [
            ("From", name(scope.url)),
            ("Server", name(scope.account.server)),
            (
                "Exported",
                f"{count_words(scope.totals.items)} items, {bytes_words(scope.totals.size_bytes)} read",
            ),
            *(
                (name(what.capitalize()), f"{count_words(count)} {'item' if count == 1 else 'items'}")
                for what, count in gone.items()
            ),
        ]
    )
    yield from _counted(source)
    yield from _points(source)
    if source.tables:
        yield from _tables(source, later)
    if source.prefixes:
        rows: list[tuple[Html | str, int]] = [
            (tag("i", "all others") if label is None else label or tag("i", "keys without a slash"), size)
            for label, size in source.prefixes
        ]
        yield plots.bars("Bytes by the beginning of the key", rows)
    yield from _missing(source)
    yield from _lost(source)


def _counted(source: SourceFacts) -> Iterator[Html]:
    counts = source.scope.account.enumerations
    if not counts:
        return
    by_what: dict[str, set[int]] = {}
    for one in counts:
        by_what.setdefault(one.what, set()).add(one.count)
    rows = [
        (
            name(one.what),
            name(one.how),
            count_words(one.count),
            tag("span", "agrees", class_="good")
            if len(by_what[one.what]) == 1
            else tag("span", "differs", class_="bad"),
        )
        for one in counts
    ]
    yield tag("h3", "Counted in more than one way")
    yield table(["What", "How", "Count", ""], rows, numbers=(2,))


def _points(source: SourceFacts) -> Iterator[Html]:
    points = source.scope.account.points
    if not points:
        return
    many = len(points) > 1
    yield tag("h3", "As of" if not many else f"As of {len(points)} moments")
    if many:
        yield tag(
            "p",
            "The export was interrupted. What had been read before was kept where it was shown to be the same at the"
            " last of these moments.",
        )
    for point in points:
        said = ((key, value) for key, value in sorted(point.items()) if value not in ("", None, [], {}))
        yield facts((name(key.replace("_", " ")), name(_plain(value))) for key, value in said)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(one)}" for key, one in sorted(value.items()))
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        return f"{value[:10]} {value[11:19]} UTC"
    return count_words(value) if type(value) is int else str(value)


def _tables(source: SourceFacts, later: Later) -> Iterator[Html]:
    tables = source.tables
    sums: dict[str | None, int] = {_label(row): row.size_bytes for row in tables}
    bars: list[tuple[Html | str, int]] = [
        (tag("i", "all others") if label is None else label, size) for label, size in most(sums)
    ]
    yield plots.bars("Bytes by table" if len(tables) <= SHOWN_BARS else "Bytes by table, the largest", bars)
    yield tag("h3", f"{count_words(len(tables))} {'table' if len(tables) == 1 else 'tables'}")
    yield tag(
        "p",
        "The digest of a table is the sum of XXH3-128 over the text of each of its rows, so any row that is changed,"
        " missing or there twice gives another one. It is taken from what the source sent, from what the Parquet files"
        " give back, and from the restored database.",
        class_="soft",
    )
    rows = [_table_row(row, later) for row in tables[:SHOWN_TABLES]]
    heads = ["Table", "Rows", "Source counted", "Bytes", "Digest: source", "Parquet", "Restored"]
    yield table(heads, rows, numbers=(1, 2, 3))
    if len(tables) > SHOWN_TABLES:
        more = count_words(len(tables) - SHOWN_TABLES)
        yield tag("p", f"{more} smaller tables are in ", tag("code", layout.CATALOG), ".")


def _table_row(row: CatalogRow, later: Later) -> tuple[object, ...]:
    key = (row.source, row.schema, row.name)
    counted = row.details.get("server_count")
    differs = isinstance(counted, int) and counted != row.items
    return (
        tag("span", name(_label(row)), "" if row.kind == "table" else f" ({row.kind})"),
        count_words(row.items),
        tag(
            "span", count_words(counted) if isinstance(counted, int) else "", class_="bad" if differs else ""
        ),
        bytes_words(row.size_bytes),
        tag("span", row.digest, class_="digest"),
        _digest(row, later.parquet.get(key), str(row.details.get("parquet_digest", ""))),
        _digest(row, later.target.get(key), recomputed=row.kind == "materialized view"),
    )


def _digest(row: CatalogRow, found: TableDigest | None, known: str = "", *, recomputed: bool = False) -> Html:
    """Return how another digest compares with the source's, of rows that may be ``recomputed``."""
    digest = found.digest if found else known
    if not digest:
        return tag("span", "not read yet", class_="soft")
    if digest == row.digest and (found is None or found.rows == row.items):
        return tag("span", "identical", class_="good")
    rows = f"{count_words(found.rows)} rows, " if found and found.rows != row.items else ""
    if recomputed:
        return tag("span", "computed anew: ", rows, tag("span", digest, class_="digest"), class_="soft")
    return tag("span", rows, tag("span", digest, class_="digest"), class_="bad")


def _label(row: CatalogRow) -> str:
    return f"{row.schema}.{row.name}" if row.schema else row.name


def _missing(source: SourceFacts) -> Iterator[Html]:
    total = sum(count for what, count in source.scope.dispositions.items() if what != "exported")
    if not source.gaps:
        return
    total = max(total, len(source.gaps))
    yield tag("h3", f"{count_words(total)} not in the bundle")
    rows = [(name(gap.item), name(gap.disposition), name(gap.reason)) for gap in source.gaps]
    yield table(["What", "", "Why"], rows)
    if total > len(source.gaps):
        yield tag("p", "All of them are in ", tag("code", layout.GAPS), ".")


def _lost(source: SourceFacts) -> Iterator[Html]:
    if not source.losses_total:
        yield tag("p", "Nothing is in the loss ledger: every property could be represented.", class_="soft")
        return
    what = "property" if source.losses_total == 1 else "properties"
    yield tag("h3", f"{count_words(source.losses_total)} {what} that could not be represented")
    rows = [(name(loss.item), name(loss.property), name(loss.reason)) for loss in source.losses]
    yield table(["Of what", "Property", "Why"], rows)
    if source.losses_total > len(source.losses):
        yield tag("p", "All of them are in ", tag("code", layout.LOSSES), ".")


def _later(later: Later) -> Iterator[Html]:
    if not later.written:
        return
    yield tag("h2", "Since the seal")
    where: list[tuple[str, object]] = [("Place", name(later.place))] if later.place else []
    if later.root:
        where.append((f"SHA-256 of {layout.TAG_MANIFEST}", tag("span", later.root, class_="digest")))
    signers = joined(tag("div", one, class_="digest") for one in later.signers) if later.signers else "nobody"
    where.append(("Signed by", signers))
    yield facts([("Written", moment(later.written)), *where])
    if not later.checks:
        yield tag("p", "Nothing has been checked for this page.")
    for check in later.checks:
        count, without = len(check.findings), len(check.left_out)
        words = [f"{count_words(count)} {'finding' if count == 1 else 'findings'}"] if count else []
        words += [f"{count_words(without)} left out"] if without else []
        state = tag("span", ", ".join(words) or "all well", class_="bad" if words else "good")
        yield tag("p", name(check.what), " ", tag("span", moment(check.at), class_="soft"), ": ", state)
        yield from _first_of([str(finding) for finding in check.findings])
        yield from _first_of([f"left out: {entry}" for entry in check.left_out])
    yield from _custody(later)


def _first_of(sentences: Sequence[str]) -> Iterator[Html]:
    """Yield a list of the first sentences, and how many more there are."""
    shown = sentences[:_SHOWN_CHECK]
    if shown:
        yield tag("ul", joined(tag("li", name(sentence)) for sentence in shown))
    if len(sentences) > len(shown):
        yield tag("p", f"and {count_words(len(sentences) - len(shown))} more")


def _custody(later: Later) -> Iterator[Html]:
    if not later.custody:
        return
    yield tag("h3", "Who did what")
    rows = [
        (
            moment(one.at[:19] + "Z"),
            tag("span", name(one.event), class_="keep"),
            name(one.place),
            name(one.who),
            tag("span", one.hash[:16] + "…", class_="digest"),
        )
        for one in later.custody[-_SHOWN_EVENTS:]
    ]
    yield table(["When", "What", "Where", "Who", "Entry"], rows)
    if len(later.custody) > _SHOWN_EVENTS:
        yield tag(
            "p", f"{count_words(len(later.custody) - _SHOWN_EVENTS)} earlier entries are in the custody log."
        )


def _how(of: Facts) -> Iterator[Html]:
    yield tag("h2", "Check it yourself")
    yield tag(
        "p",
        "No program of ours is needed. In the bundle's directory (fetch it first, if it lies in a bucket):",
    )
    yield tag("pre", "\n".join(_commands(of.sources)))
    yield tag(
        "p",
        "This page is named, with its SHA-256, in ",
        tag("code", layout.TAG_MANIFEST),
        ", like everything else that is not data; every file of data is named in ",
        tag("code", layout.MANIFEST),
        ". Whoever keeps the SHA-256 of ",
        tag("code", layout.TAG_MANIFEST),
        " somewhere else can tell at any later time that not one byte has changed. Signatures, where there are any,"
        " lie in ",
        tag("code", layout.SIGNATURES),
        " and sign that file.",
    )
    yield tag(
        "footer", "Written by ", name(of.info.software), ". The format is described in its docs/FORMAT.md."
    )


def _commands(sources: Sequence[SourceFacts]) -> Iterator[str]:
    yield "# every byte"
    yield "sha256sum --strict --quiet -c tagmanifest-sha256.txt manifest-sha256.txt"
    yield "# the same and more, by the Library of Congress"
    yield "bagit.py --validate ."
    yield "# what is there"
    yield "duckdb -c \"SELECT source, schema, name, items, digest FROM 'data/catalog.parquet'\""
    for source in sources:
        first = next((row for row in source.tables if row.items), None)
        if first is not None:
            files = f"data/{source.scope.name}/tables/{first.number}/*.parquet"
            yield f"# the rows of one table: it should say {first.items}"
            yield f"duckdb -c \"SELECT count(*) FROM '{files}'\""
        if source.prefixes:
            yield f"# the objects of {source.scope.name}"
            index = f"data/{source.scope.name}/index/*.parquet"
            yield f"duckdb -c \"SELECT key, size, sha256, pack FROM '{index}' LIMIT 10\""
    yield "# with moveout: every byte, every object, every value"
    yield "moveout verify . --level full"
