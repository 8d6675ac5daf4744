"""Types of columns, each with values from its extremes to the ordinary."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.torture.random_databases.words import literal, quote, text

Dice = random.Random
CHARSETS = (
    *(
        "utf8mb4",
        "utf8mb4",
        "utf8mb4",
        "utf8mb3",
        "latin1",
        "latin1",
        "ascii",
        "ucs2",
        "utf16",
        "utf16le",
        "utf32",
    ),
    *(
        "cp1251",
        "sjis",
        "gbk",
        "big5",
        "ujis",
        "euckr",
        "latin2",
        "latin5",
        "latin7",
        "koi8r",
        "cp932",
        "eucjpms",
    ),
    *(
        "greek",
        "hebrew",
        "tis620",
        "cp850",
        "macroman",
        "armscii8",
        "geostd8",
        "swe7",
        "dec8",
        "hp8",
        "keybcs2",
    ),
    *("gb18030", "binary"),
)
_WHOLE = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_SHAPES = (
    "POINT(1 2)",
    "POINT(-0.5 1e10)",
    "LINESTRING(0 0,1 1,2 0.1)",
    "POLYGON((0 0,1 0,1 1,0 0))",
    "POLYGON((0 0,9 0,9 9,0 9,0 0),(1 1,2 1,2 2,1 1))",
    "MULTIPOINT(1 1,2 2)",
    "MULTILINESTRING((0 0,1 1),(2 2,3 3))",
    "MULTIPOLYGON(((0 0,1 0,1 1,0 0)))",
    "GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))",
)
_JSON = (
    *(
        "{}",
        "[]",
        "null",
        "true",
        "1",
        "-0.0",
        "1e100",
        "1.50",
        "18446744073709551615",
        "-9223372036854775808",
    ),
    *('"x"', '"\\u00e9 \\\\ \\" \\n"', '{"a":[1,2.50,{"b":null}],"":"e"}', '{"b":1,"a":1,"aa":1e-7}', '"😀"'),
    *("[[[[[1]]]]]", '{"d":"2024-01-01","x":100000000000000000000.5}', "[0.1,0.10,1e15,123456789012345678]"),
)


@dataclass(frozen=True, slots=True)
class Type:
    """A type as it is declared, and what makes a value of it, as SQL. ``family`` is what it can be used for."""

    sql: str
    family: str
    value: Callable[[Dice], str]


def any_type(dice: Dice, *, mariadb: bool) -> Type:
    makers = [
        _whole,
        _whole,
        _exact,
        _real,
        _text,
        _text,
        _text,
        _bytes,
        _moment,
        _moment,
        _label,
        _label,
        _bit,
    ]
    makers += [_shape, _json]
    if mariadb:
        makers.append(_of_mariadb)
    return dice.choice(makers)(dice, mariadb)


def _whole(dice: Dice, mariadb: bool) -> Type:
    name = dice.choice(list(_WHOLE))
    bits, unsigned = _WHOLE[name], dice.random() < 0.4
    width = f"({dice.randint(1, 20)})" if dice.random() < 0.2 else ""
    zeros = " zerofill" if dice.random() < 0.1 else ""
    low, high = (0, 2**bits - 1) if unsigned or zeros else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    sql = name + width + (" unsigned" if unsigned else "") + zeros
    return Type(sql, "whole", lambda d: str(d.choice((low, high, 0, 1, low + 1, d.randint(low, high)))))


def _exact(dice: Dice, mariadb: bool) -> Type:
    digits = dice.choice((1, 5, 10, 18, 19, 37, 38, 39, 64, 65))
    scale = dice.choice((0, 0, 1, 2, 30, 38))
    scale = min(scale, digits, 38 if mariadb else 30)
    sql = f"decimal({digits},{scale})" + dice.choice(("", "", "", " unsigned", " zerofill"))

    def value(d: Dice) -> str:
        number = d.choice((10**digits - 1, 0, 1, d.randrange(10**digits)))
        body = str(number).rjust(scale + 1, "0")
        body = f"{body[: len(body) - scale]}.{body[len(body) - scale :]}" if scale else body
        return d.choice(("", "-")) + body

    return Type(sql, "number", value)


def _real(dice: Dice, mariadb: bool) -> Type:
    sql = dice.choice(("float", "double", "float", "double", "float(7,3)", "double(12,4)", "float unsigned"))
    numbers = (
        *(
            "0e0",
            "-0e0",
            "1e0",
            "0.1e0",
            "-1.5e-10",
            "3.4028234e38",
            "1.17549e-38",
            "16777217e0",
            "1e15",
            "1e16",
        ),
        *(
            "1.7976931348623157e308",
            "5e-324",
            "2.2250738585072014e-308",
            "123456789012345678e0",
            "-1e-5",
            "1e22",
        ),
    )
    return Type(sql, "real", lambda d: d.choice((*numbers, repr(d.uniform(-1e9, 1e9)), repr(d.gauss(0, 1)))))


def charset_of(dice: Dice, mariadb: bool) -> str:
    """The words for a charset or a collation."""
    if dice.random() < 0.4:
        return ""
    if dice.random() < 0.3:
        some = (
            "utf8mb4_bin",
            "utf8mb4_general_ci",
            "latin1_german2_ci",
            "utf8mb4_unicode_520_ci",
            "ascii_bin",
        )
        own = (
            ("utf8mb4_uca1400_ai_ci", "utf8mb4_nopad_bin", "utf8mb4_general_nopad_ci", "uca1400_as_cs")
            if mariadb
            else (
                "utf8mb4_0900_as_cs",
                "utf8mb4_ja_0900_as_cs_ks",
                "utf8mb4_0900_bin",
                "utf8mb4_sv_0900_ai_ci",
            )
        )
        return f" COLLATE {dice.choice(some + own)}"
    return f" CHARACTER SET {dice.choice(CHARSETS)}"


def _text(dice: Dice, mariadb: bool) -> Type:
    size = dice.choice((1, 3, 10, 50, 255, 256, 300))
    name = dice.choice(
        (
            f"char({min(size, 255)})",
            f"varchar({size})",
            f"varchar({size})",
            "tinytext",
            "text",
            "mediumtext",
            "longtext",
        )
    )
    packed = " COMPRESSED" if mariadb and dice.random() < 0.05 and "char(" not in name else ""
    sql = name + packed + charset_of(dice, mariadb)
    return Type(sql, "text" if "text" in name else "string", lambda d: literal(text(d)))


def _bytes(dice: Dice, mariadb: bool) -> Type:
    size = dice.choice((1, 3, 16, 255, 300))
    name = dice.choice(
        (f"binary({min(size, 255)})", f"varbinary({size})", "tinyblob", "blob", "mediumblob", "longblob")
    )
    return Type(
        name,
        "blob" if "blob" in name else "binary",
        lambda d: f"X'{d.randbytes(d.choice((0, 0, 1, 2, 5, 16, 255))).hex()}'",
    )


def _moment(dice: Dice, mariadb: bool) -> Type:
    name = dice.choice(("date", "time", "datetime", "timestamp", "year"))
    digits = dice.choice((0, 0, 1, 3, 6)) if name not in {"date", "year"} else 0
    sql = f"{name}({digits})" if digits else name
    sql += " NULL" if name == "timestamp" else ""
    days = (
        "0000-00-00",
        "1000-01-01",
        "9999-12-31",
        "2024-02-29",
        "2024-02-31",
        "2020-00-00",
        "0001-01-01",
        "0000-01-01",
    )
    stamps = (
        "0000-00-00 00:00:00",
        "1970-01-01 00:00:01",
        "2038-01-19 03:14:07.999999",
        "2024-03-31 01:30:00.5",
    )
    clocks = (
        "00:00:00",
        "23:59:59.999999",
        "838:59:59",
        "-838:59:59",
        "-00:00:00.1",
        "24:00:00",
        "-00:00:01",
        "100:0:0.25",
    )

    def value(d: Dice) -> str:
        day, clock = d.choice(days), d.choice(("00:00:00", "23:59:59.999999", "12:30:01.5"))
        return {
            "date": f"'{day}'",
            "time": f"'{d.choice(clocks)}'",
            "datetime": f"'{day} {clock}'",
            "timestamp": f"'{d.choice(stamps)}'",
            "year": d.choice(("0", "1901", "2155", "2000", "1970")),
        }[name]

    return Type(sql, name, value)


def _label(dice: Dice, mariadb: bool) -> Type:
    name = dice.choice(("enum", "set"))
    labels: dict[str, str] = {}
    for _ in range(dice.choice((1, 2, 3, 8, 20, 63))):
        word = "".join(char for char in text(dice)[:30] if char != "?" and (mariadb or char < "\U00010000"))
        word = word.rstrip().replace("\0", "")  # which labels MySQL has it tells of rows only
        word = word.replace(",", ";") if name == "set" else word
        labels.setdefault(word.casefold(), word)
    found = list(labels.values())
    charset = charset_of(dice, mariadb)
    charset = charset if mariadb or "binary" not in charset else ""
    sql = f"{name}({','.join(map(literal, found))}){charset}"
    top = len(found) if name == "enum" else 2 ** len(found) - 1
    return Type(sql, name, lambda d: str(d.choice((0, 1, top, d.randint(0, top)))))


def _bit(dice: Dice, mariadb: bool) -> Type:
    bits = dice.choice((1, 2, 8, 9, 63, 64))
    return Type(
        f"bit({bits})", "bit", lambda d: f"0x{d.choice((0, 1, 2**bits - 1, d.randrange(2**bits))):016x}"
    )


def _shape(dice: Dice, mariadb: bool) -> Type:
    name = dice.choice(
        ("geometry", "geometry", "point", "polygon", "linestring", "geometrycollection", "multipoint")
    )
    number = dice.choice((0, 4326, 3857))
    tied = f" SRID {number}" if not mariadb and dice.random() < 0.3 else ""
    able = [one for one in _SHAPES if name == "geometry" or one.lower().startswith(name + "(")] or list(
        _SHAPES
    )
    srid = number if tied else None

    def value(d: Dice) -> str:
        shape = d.choice(able)
        if srid or (srid is None and "e10" not in shape and d.random() < 0.3):
            return f"ST_GeomFromText('{shape.replace('1e10', '10')}',{srid or 4326})"
        return f"ST_GeomFromText('{shape}')"

    return Type(name + tied, "shape", value)


def _json(dice: Dice, mariadb: bool) -> Type:
    return Type("json", "json", lambda d: literal(d.choice(_JSON)))


def _of_mariadb(dice: Dice, mariadb: bool) -> Type:
    name = dice.choice(("uuid", "inet6", "inet4"))
    values = {
        "uuid": (
            "'00000000-0000-0000-0000-000000000000'",
            "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
            "UUID()",
        ),
        "inet6": ("'::'", "'::ffff:1.2.3.4'", "'2001:db8::1'", "'ffff::ffff'"),
        "inet4": ("'0.0.0.0'", "'255.255.255.255'", "'10.1.2.3'"),
    }[name]
    return Type(name, name, lambda d: d.choice(values))


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table that is there."""

    name: str
    type: Type
    generated: bool

    @property
    def label(self) -> str:
        return quote(self.name)
