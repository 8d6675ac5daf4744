"""The tables of types in docs/FORMAT.md say what the exporters do."""

import re
from pathlib import Path

import pytest

from exporters.mysql.rows import column_types as mysql
from exporters.postgres.rows import column_types as postgres
from exporters.sqlite.rows.typed_columns import arrow_type

FORMAT = (Path(__file__).parents[2] / "docs/FORMAT.md").read_text(encoding="utf-8")
POSTGRES = {
    "boolean": "bool", "smallint": "int2", "integer": "int4", "bigint": "int8", "real": "float4",
    "double precision": "float8",
}  # fmt: skip
"""The names that pg_type has for them."""
OVER = {"int4": "int4", "tstz": "timestamptz"}
"""What the ranges that are named are ranges of."""


def rows(heading, following):
    """The types of a section's table with the Arrow types beside them, one by one."""
    section = FORMAT[FORMAT.index(f"\n### {heading}\n") : FORMAT.index(f"\n#{following}")]
    table = section[: section.index("\n\n", section.index("| Arrow |"))]
    for line in re.findall(r"^\| (?!type |class |---)(.*) \|$", table, re.MULTILINE):
        types, _, arrow, _ = (cell.strip() for cell in line.split(" |", 3))
        names = re.findall(r"`([a-z0-9_ ]+(?:\[\])?)(?:\([a-z,]+\))?`", types)
        shown = re.findall(r"`([^`]+)`", arrow)
        yield types, names, shown


def arrow_of(kind) -> str:
    shown = str(kind.stored)
    return (
        "decimal128(p, s)"
        if shown.startswith("decimal128")
        else re.sub(r"(arrow\.json|arrow\.uuid).*", r"\1>", shown)
    )


@pytest.mark.parametrize(("types", "names", "shown"), list(rows("PostgreSQL", "## MySQL and MariaDB")))
def test_postgres(types, names, shown):
    if "numeric" in types:
        modifier = -1 if "without" in types else ((12 << 16) | 2) + 4
        found = [arrow_of(postgres.kind_of(postgres.SqlType("numeric", built_in=True, modifier=modifier)))]
    else:
        found = [arrow_of(postgres.kind_of(pg_type(name))) for name in names]
    assert set(found) == set(shown) or not found


def pg_type(name):
    if name == "hstore":
        return postgres.SqlType(name, built_in=False, modifier=-1, shape="map")
    if name.endswith("[]"):
        inner = pg_type(name.removesuffix("[]"))
        return postgres.SqlType(f"_{inner.name}", True, -1, "list", (inner,))
    if name.endswith("range"):
        shape = "multirange" if "multi" in name else "range"
        return postgres.SqlType(name, True, -1, shape, (pg_type(OVER[name.removesuffix(shape)]),))
    return postgres.SqlType(POSTGRES.get(name, name), built_in=True, modifier=-1)


def my_type(name, *, full="", precision=0):
    return mysql.SqlType(name, full or name, precision, 2, 0, "utf8mb4")


@pytest.mark.parametrize(("types", "names", "shown"), list(rows("MySQL and MariaDB", "## SQLite")))
def test_mysql(types, names, shown):
    integers = ["tinyint", "smallint", "mediumint", "int", "bigint"]
    if types.startswith("the same"):
        found = [my_type(name, full=f"{name} unsigned") for name in integers]
    elif "decimal" in types:
        found = [my_type("decimal", precision=40 if "> 38" in types else 12)]
    elif "label `''`" in types:
        found = [my_type(name, full=f"{name}('a','')") for name in names if name in {"enum", "set"}]
    else:
        found = [
            my_type(name) for name in names if name not in {"json_valid", "longtext"} or "JSON" not in types
        ]
        found = [one for one in found if "json" not in names or one.name == "json"]
    kinds = [arrow_of(mysql.kind_of(one)) for one in found]
    assert set(kinds) == set(shown)
    assert len(shown) in {1, len(kinds)}
    if len(shown) > 1:
        assert kinds == shown


def test_sqlite():
    documented = {types.lower(): shown for types, _, shown in rows("SQLite", "# Buckets") if shown}
    assert {name: [str(arrow_type(name))] for name in ("integer", "real", "text", "blob")} == documented
