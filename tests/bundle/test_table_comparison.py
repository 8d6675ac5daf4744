"""Tables of a bundle against tables that were read elsewhere."""

from __future__ import annotations

from msgspec.structs import replace

from exporters.row_digest import RowsDigest, digest_texts, to_hex
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.table_comparison import TableDigest, compare_tables, digests_of


def read(*texts: str) -> RowsDigest:
    return digest_texts([text.encode() for text in texts])


def table(name: str, *texts: str, above: str = "", kind="table") -> CatalogRow:
    digest = read(*texts)
    details = {"ancestors": [["s", "nearer"], ["s", above]]} if above else {}
    return CatalogRow("app", kind, 1, "s", name, "", digest.rows, 0, to_hex(digest.digest), {}, details)


def differences(tables: list[CatalogRow], **live: RowsDigest) -> list[tuple[str, str]]:
    found = compare_tables(tables, {("s", name): digest for name, digest in live.items()})
    return [(difference.table.name, difference.what) for difference in found]


def test_a_table_is_missing_or_has_other_rows_or_other_values():
    tables = [table("a", "1", "2"), table("b", "1"), table("c", "1"), table("d"), table("e", "1")]
    live = {"a": read("2", "1"), "b": read("1", "1"), "c": read("2"), "d": read(), "other": read("1")}
    assert differences(tables, **live) == [("b", "rows"), ("c", "digest"), ("e", "missing")]
    (missing,) = compare_tables([tables[0]], {("other", "a"): read("1", "2")})
    assert (missing.what, missing.expected, missing.found, missing.name) == ("missing", "2", "", ("s", "a"))
    (rows,) = compare_tables([tables[1]], {("s", "b"): read()})
    assert (rows.expected, rows.found) == ("1", "0")
    (digest,) = compare_tables([tables[1]], {("s", "b"): read("x")})
    assert (digest.expected, digest.found) == (tables[1].digest, to_hex(read("x").digest))


def test_rows_in_another_partition_of_their_table_are_no_difference():
    tables = [
        table("p1", "1", "2", above="p"),
        table("p2", "3", above="p"),
        table("q1", "1", above="q"),
        table("q2", "2", above="q"),
        table("alone", "1"),
    ]
    same = {"q1": read("1"), "q2": read("2"), "alone": read("1")}
    assert differences(tables, p1=read("1"), p2=read("2", "3"), **same) == []
    assert differences(tables, p1=read("3", "2"), p2=read("1"), **same) == []
    assert differences(tables, p1=read("1"), p2=read("3"), **same) == [("p1", "rows")]
    assert differences(tables, p1=read("1", "3"), p2=read("x"), **same) == [
        ("p1", "digest"),
        ("p2", "digest"),
    ]
    assert differences(tables, p2=read("1", "2", "3"), **same) == [("p1", "missing")]
    crossed = {"p1": read("1", "2"), "p2": read("2"), "q1": read("1"), "q2": read("3"), "alone": read("1")}
    assert differences(tables, **crossed) == [("p2", "digest"), ("q2", "digest")]
    assert differences(tables, p1=read("1"), p2=read("2", "3"), **same | {"alone": read("2")}) == [
        ("alone", "digest")
    ]


def test_digests_of_a_database_are_listed_in_order():
    assert digests_of("app", {("s", "b"): read("1"), ("r", "c"): read()}) == (
        TableDigest("app", "r", "c", 0, "0" * 32),
        TableDigest("app", "s", "b", 1, to_hex(read("1").digest)),
    )
    assert digests_of("app", {("s", "b"): read("1")})[0].as_json() == {
        "source": "app",
        "schema": "s",
        "name": "b",
        "rows": 1,
        "digest": to_hex(read("1").digest),
    }


def test_partitions_belong_to_the_table_at_the_top_however_many_lie_between():
    def part(name: str, text: str, *above: tuple[str, str]) -> CatalogRow:
        return replace(table(name, text), details={"ancestors": [list(each) for each in above]})

    top, other = ("s", "top"), ("t", "top")
    tables = [part("a", "1", ("r", "half"), ("r", "nearer"), top), part("b", "2", top), part("c", "3", other)]
    assert differences(tables, a=read("2"), b=read("1"), c=read("3")) == []
    assert differences(tables, a=read("3"), b=read("2"), c=read("1")) == [("a", "digest"), ("c", "digest")]
