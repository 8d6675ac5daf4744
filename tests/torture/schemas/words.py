"""Names that are hard to write, and values of every type, drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from exporters.postgres.identifiers import quote_name

_ODD = [
    "plain",
    "Mixed Case",
    'with "quotes"',
    "dot.ted",
    "new\nline",
    "it's",
    "select",
    "user",
    "ünï çödé",
    "tab\there",
    "$1$",
    "back\\slash",
    " leading",
    "trailing ",
    "%s {0}",
    "-- comment",
    "/* comment */",
    "; drop",
    "数据",
    "🙂",
    "\r",
    "a,b",
    "(x)",
    "E'",
    "NULL",
    "$$",
]
_LONGEST = 63


class Names:
    """Names that no two objects share: each has a number. ``quoted`` is the last one, for SQL."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._count = 0

    def new(self, begin: str) -> str:
        """Return a quoted name."""
        self._count += 1
        begin += str(self._count)
        if self._rng.random() < 0.5:
            return quote_name(begin)
        if self._rng.random() < 0.15:
            room = _LONGEST - len(begin)
            return quote_name(begin + self._rng.choice(["ä" * (room // 2), "x" * room, "数" * (room // 3)]))
        return quote_name(f"{self._rng.choice(_ODD)}{begin}")


def literal(text: str) -> str:
    """Return a string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"


@dataclass(frozen=True, slots=True)
class Type:
    """A type, and how to draw the SQL of one of its values. ``ordered``: it has a btree operator class."""

    sql: str
    draw: Callable[[Random], str]
    ordered: bool = True
    text: bool = False
    since: int = 0

    def value(self, rng: Random) -> str:
        """Return SQL of a value, now and then NULL."""
        return f"NULL::{self.sql}" if rng.random() < 0.1 else f"{self.draw(rng)}::{self.sql}"


def _pick(*values: str) -> Callable[[Random], str]:
    return lambda rng: literal(rng.choice(values))


def _letters(most: int) -> Callable[[Random], str]:
    def draw(rng: Random) -> str:
        letters = [
            rng.choice("aZ09 \t\n\r,\"'\\{}()[]<>=;:$%ßé数🙂\x01\x7f\u0301\ufeff\u2028-/.")
            for _ in range(rng.randint(0, most))
        ]
        return literal("".join(letters))

    return draw


def _number(low: int, high: int) -> Callable[[Random], str]:
    return lambda rng: literal(str(rng.choice([low, high, 0, 1, rng.randint(low, high)])))


def _decimal(digits: int, scale: int, *special: str) -> Callable[[Random], str]:
    def draw(rng: Random) -> str:
        if special and rng.random() < 0.2:
            return literal(rng.choice(special))
        whole = rng.randint(0, 10 ** rng.randint(0, digits - scale) - 1)
        fraction = "".join(rng.choice("0123456789") for _ in range(scale))
        return literal(f"{rng.choice(['', '-'])}{whole}.{fraction}")

    return draw


def _bits(least: int, most: int) -> Callable[[Random], str]:
    return lambda rng: literal("".join(rng.choice("01") for _ in range(rng.randint(least, most))))


def _bytes(rng: Random) -> str:
    return literal("\\x" + rng.randbytes(rng.choice([0, 1, 5, 300])).hex())


def _moment(rng: Random) -> str:
    year = rng.choice(["0001", "1582", "1999", "2024", "9999", "12345"])
    clock = f"{rng.randint(10, 23)}:5{rng.randint(0, 9)}:07.{rng.randint(0, 999999):06}"
    return literal(f"{year}-0{rng.randint(1, 9)}-{rng.randint(10, 28)} {clock}{rng.choice(['', ' BC'])}")


def _or(special: list[str], draw: Callable[[Random], str]) -> Callable[[Random], str]:
    return lambda rng: literal(rng.choice(special)) if rng.random() < 0.3 else draw(rng)


_FLOATS = ["NaN", "Infinity", "-Infinity", "-0", "0.1", "1e22", "1e23", "123456789012345678"]
_JSON = ['{"a" : [1, 2.50, null], "a": "\\u00e9"}', "[]", '"x"', "null", ' {"b":  {}} ', "1e400", '"\\u2028"']
_DATES = ["infinity", "-infinity", "4713-01-01 BC", "5874897-12-31", "0044-03-15 BC", "2024-02-29"]
_MOMENTS = ["infinity", "-infinity", "294276-12-31 23:59:59.999999", "4713-01-01 00:00:00 BC"]

BASE: list[Type] = [
    Type("bool", _pick("t", "f")),
    Type("int2", _number(-(2**15), 2**15 - 1)),
    Type("int4", _number(-(2**31), 2**31 - 1)),
    Type("int8", _number(-(2**63), 2**63 - 1)),
    Type("numeric", _decimal(60, 20, "NaN", "1e-300", "9" * 200)),
    Type("numeric", _pick("Infinity", "-Infinity", "0.000", "1e100"), since=14),
    Type("numeric(10,2)", _decimal(10, 2, "NaN")),
    Type("numeric(38,38)", _decimal(38, 38)),
    Type("numeric(45,3)", _decimal(45, 3)),
    Type("numeric(3,-2)", _pick("12345", "-99900", "0"), since=15),
    Type("numeric(2,5)", _pick("0.00012", "-0.00099", "NaN"), since=15),
    Type("float4", _pick(*_FLOATS, "1e-45", "3.4028235e38")),
    Type("float8", _pick(*_FLOATS, "5e-324", "1.7976931348623157e308")),
    Type("text", _letters(20), text=True),
    Type("varchar(5)", _letters(5), text=True),
    Type("varchar", _letters(9), text=True),
    Type("char(4)", _letters(4), text=True),
    Type("bytea", _bytes),
    Type("date", _pick(*_DATES)),
    Type("time", _pick("00:00", "24:00:00", "23:59:59.999999", "12:30:00.5")),
    Type("time(2)", _pick("00:00:00.129", "23:59:59.994")),
    Type("timetz", _pick("24:00:00-15:59", "00:00:00+15:59:59", "12:00:00.000001+01:30")),
    Type("timestamp", _or(_MOMENTS, _moment)),
    Type("timestamp(0)", _or(_MOMENTS[:2], _moment)),
    Type("timestamptz", _or(_MOMENTS, _moment)),
    Type("timestamptz(3)", _or(_MOMENTS[:2], _moment)),
    Type(
        "interval",
        _pick(
            "178000000 years",
            "-1 mons +2 days -03:04:05.000006",
            "00:00",
            "1 year -1 day",
            "2562047788:00:54.775807",
        ),
    ),
    Type("interval year to month", _pick("3 years 2 mons", "-1 mon")),
    Type("interval second(2)", _pick("1.239", "-61.5")),
    Type("uuid", _pick("00112233-4455-6677-8899-aabbccddeeff", "ffffffff-ffff-ffff-ffff-ffffffffffff")),
    Type("json", _pick(*_JSON), ordered=False),
    Type("jsonb", _pick(*_JSON[:-2])),
    Type("inet", _pick("10.0.0.1/8", "::1", "::ffff:1.2.3.4/96", "255.255.255.255")),
    Type("cidr", _pick("10.0.0.0/8", "::/0")),
    Type("macaddr", _pick("08:00:2b:01:02:03")),
    Type("macaddr8", _pick("08:00:2b:01:02:03:04:05")),
    Type("bit(3)", _bits(3, 3)),
    Type("varbit", _bits(0, 70)),
    Type("point", _pick("(1,2)", "(NaN,-Infinity)", "(1e-300,-0)"), ordered=False),
    Type("line", _pick("{1,2,3}", "{-1,0,1e300}"), ordered=False),
    Type("lseg", _pick("[(0,0),(1,1)]"), ordered=False),
    Type("box", _pick("(1,1),(0,0)", "(Infinity,1),(0,-0)"), ordered=False),
    Type("path", _pick("((0,0),(1,1))", "[(0,0)]"), ordered=False),
    Type("polygon", _pick("((0,0),(1,0),(1,1))"), ordered=False),
    Type("circle", _pick("<(0,0),1>"), ordered=False),
    Type("tsvector", _pick("a:1B,2 'b c':3", "'it''s' '\\\\'", "")),
    Type("tsquery", _pick("a & !b | 'c d':*AB", "x <3> y", "")),
    Type("money", _pick("1.25", "-92233720368547758.08", "92233720368547758.07")),
    Type("name", _letters(15)),
    Type('"char"', _pick("", "a", ",", '"', "\\\\")),
    Type("oid", _number(0, 2**32 - 1)),
    Type("regclass", _pick("pg_catalog.pg_class", "pg_catalog.pg_type", "-")),
    Type("regtype", _pick("int4", "_text", "-")),
    Type("regproc", _pick("now", "-")),
    Type("regprocedure", _pick("abs(integer)", "-")),
    Type("regoperator", _pick("+(integer,integer)", "0")),
    Type("regconfig", _pick("pg_catalog.simple")),
    Type("regrole", _pick("postgres", "-")),
    Type("regnamespace", _pick("pg_catalog", "-")),
    Type("xid", _number(0, 2**32 - 1), ordered=False),
    Type("cid", _number(0, 2**32 - 1), ordered=False),
    Type("tid", _pick("(0,1)", "(4294967295,65535)")),
    Type("pg_lsn", _pick("0/0", "FFFFFFFF/FFFFFFFF")),
    Type("txid_snapshot", _pick("10:20:15,17"), ordered=False),
    Type("jsonpath", _pick("strict $.a", '$."b c"[*] ? (@ > 1)'), ordered=False),
    Type("int2vector", _pick("1 2 3", ""), ordered=False),
    Type("oidvector", _pick("5 6", "")),
    Type("int4range", _pick("[1,3)", "empty", "(,)", "[5,]")),
    Type("numrange", _pick("(1.50,NaN]", "[,0.10)", "empty")),
    Type("tsrange", _pick('["2020-01-01",infinity)', "(,)", '[,"0044-01-01 BC")')),
    Type("tstzrange", _pick('[-infinity,"2020-01-01 05:00+05")', "empty")),
    Type("daterange", _pick("[2020-01-01,)", "[,infinity)", "(2020-01-01,2020-01-03]")),
    Type("int8multirange", _pick("{[1,2),[5,)}", "{}"), since=14),
    Type("nummultirange", _pick("{(,1.5),[2,2]}", "{}"), since=14),
    Type("tstzmultirange", _pick('{["2020-01-01 00:00+00",)}', "{}"), since=14),
    Type("xid8", _number(0, 2**64 - 1), since=13),
    Type("pg_snapshot", _pick("10:20:15"), ordered=False, since=13),
]
"""What the servers have of their own."""


def array_of(inner: Type) -> Type:
    """Return arrays of a type: empty ones, of several dimensions, beginning elsewhere."""

    def draw(rng: Random) -> str:
        shape = rng.random()
        if shape < 0.15:
            return "'{}'"
        if shape < 0.3:
            return f"array_fill({inner.value(rng)}, ARRAY[2, 1], ARRAY[{rng.randint(-3, 3)}, 0])"
        if shape < 0.4:
            rows = [f"ARRAY[{inner.value(rng)}, {inner.value(rng)}]" for _ in range(2)]
            return f"ARRAY[{', '.join(rows)}]"
        return f"ARRAY[{', '.join(inner.value(rng) for _ in range(rng.randint(1, 4)))}]::{inner.sql}[]"

    return Type(f"{inner.sql}[]", draw, ordered=inner.ordered, since=inner.since)
