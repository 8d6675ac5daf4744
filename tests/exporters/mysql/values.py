"""Values of every type, as SQL writes them."""

import json

from hypothesis import strategies as st

Literals = st.SearchStrategy[str]


def characters(value: str, charset: str = "utf8mb4") -> str:
    """Text as a literal; its bytes in hexadecimal, so that nothing of it is SQL."""
    codecs = {
        "utf8mb4": "utf-8",
        "latin1": "cp1252",
        "ucs2": "utf-16-be",
        "utf16": "utf-16-be",
        "sjis": "shift_jis",
    }
    return f"_{charset} x'{value.encode(codecs.get(charset, charset)).hex()}'"


def octets(value: bytes) -> str:
    return f"x'{value.hex()}'"


def numbers(least: int, most: int) -> Literals:
    return st.one_of(st.sampled_from([least, most, 0]), st.integers(least, most)).map(str)


def exactly(digits: int, locations: int) -> Literals:
    def written(number: int) -> str:
        text = str(abs(number)).rjust(locations + 1, "0")
        return f"{'-' * (number < 0)}{text[:-locations]}.{text[-locations:]}"

    return st.integers(-(10**digits) + 1, 10**digits - 1).map(written)


def text_of(
    alphabet: st.SearchStrategy[str] | None = None, most: int = 20, charset: str = "utf8mb4"
) -> Literals:
    some = st.characters(exclude_categories=["Cs"]) if alphabet is None else alphabet
    return st.text(some, max_size=most).map(lambda value: characters(value, charset))


def any_bytes(most: int) -> Literals:
    return st.binary(max_size=most).map(octets)


def quoted(strategy: st.SearchStrategy[object]) -> Literals:
    return strategy.map("'{}'".format)


_DAYS = st.one_of(
    st.dates().map(str),
    st.builds("{:04}-{:02}-{:02}".format, st.integers(0, 9999), st.integers(0, 12), st.integers(0, 31)),
)
"""Zero and partial dates among them, and days that no month has."""
_CLOCK = st.times().map(str)
_SIGNS, _HOURS, _SIXTY = st.sampled_from(["", "-"]), st.integers(0, 837), st.integers(0, 59)
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_SINGLES = st.floats(allow_nan=False, allow_infinity=False, width=32, allow_subnormal=False)
_LABELS = ["a", "b,c", "d'e", 'f"g', "ü"]
_JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), _FLOATS, st.text(st.characters(exclude_categories=["Cs"]))
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("ab\"'\\ü"), inner, max_size=3)
    ),
    max_leaves=5,
)
_POINTS = st.builds("{} {}".format, _FLOATS, _FLOATS)
_SHAPES = st.one_of(
    _POINTS.map("POINT({})".format),
    st.lists(_POINTS, min_size=2, max_size=4).map(lambda some: f"LINESTRING({','.join(some)})"),
    st.lists(_POINTS, min_size=1, max_size=3).map(lambda some: f"MULTIPOINT({','.join(some)})"),
)

STRATEGIES: dict[str, Literals] = {
    **{f"{name}INT": numbers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for name, bits in (
        ("TINY", 8), ("SMALL", 16), ("MEDIUM", 24), ("", 32), ("BIG", 64))},
    **{f"{name}INT UNSIGNED": numbers(0, 2**bits - 1) for name, bits in (
        ("TINY", 8), ("SMALL", 16), ("MEDIUM", 24), ("", 32), ("BIG", 64))},
    "INT(8) ZEROFILL": numbers(0, 2**32 - 1),
    "BOOLEAN": numbers(-128, 127),
    "BIT(1)": numbers(0, 1),
    "BIT(64)": numbers(0, 2**64 - 1),
    "DECIMAL(10,0)": numbers(-(10**10) + 1, 10**10 - 1),
    "DECIMAL(12,2)": exactly(12, 2),
    "DECIMAL(38,10)": exactly(38, 10),
    "DECIMAL(65,30)": exactly(65, 30),
    "FLOAT": _SINGLES.map(repr),
    "DOUBLE": _FLOATS.map(repr),
    "YEAR": st.one_of(st.just("0"), st.integers(1901, 2155).map(str)),
    "DATE": quoted(_DAYS),
    "DATETIME": quoted(st.builds("{} {:02}:{:02}:{:02}".format, _DAYS, st.integers(0, 23), *[st.integers(0, 59)] * 2)),
    "DATETIME(6)": quoted(st.builds("{} {}".format, _DAYS, _CLOCK)),
    "TIMESTAMP(6) NULL": st.one_of(st.just("0"), st.integers(10**6, 2**31 * 10**6 - 1).map(
        lambda micros: f"FROM_UNIXTIME({micros // 10**6}.{micros % 10**6:06})")),
    "TIME": quoted(st.builds("{}{}:{:02}:{:02}".format, _SIGNS, _HOURS, _SIXTY, _SIXTY)),
    "TIME(6)": quoted(
        st.builds("{}{}:{:02}:00.{:06}".format, _SIGNS, _HOURS, _SIXTY, st.integers(0, 10**6 - 1))),
    "CHAR(9)": text_of(most=9),
    "VARCHAR(20)": text_of(),
    "LONGTEXT": text_of(),
    "VARCHAR(20) CHARACTER SET latin1": st.text(st.sampled_from("aÿ€\\'\0\n"), max_size=20).map(
        lambda value: characters(value, "latin1")),
    "VARCHAR(20) CHARACTER SET cp1251": any_bytes(20).map("_cp1251 {}".format),
    "VARCHAR(20) CHARACTER SET koi8r": any_bytes(20).map("_koi8r {}".format),
    "VARCHAR(20) CHARACTER SET ucs2": st.lists(st.binary(min_size=2, max_size=2), max_size=9).map(
        lambda units: f"_ucs2 {octets(b''.join(units))}"),
    "VARCHAR(20) CHARACTER SET utf16": text_of(charset="utf16"),
    "VARCHAR(20) CHARACTER SET sjis": st.text(st.sampled_from("aｱ日本\\~"), max_size=9).map(
        lambda value: characters(value.replace("\\", "").replace("~", ""), "sjis")),
    "VARCHAR(20) CHARACTER SET ascii": text_of(st.characters(max_codepoint=127), charset="ascii"),
    "BINARY(4)": any_bytes(4),
    "VARBINARY(20)": any_bytes(20),
    "LONGBLOB": any_bytes(50),
    "ENUM('a','b,c','d''e','f\"g','ü')": st.one_of(st.just("0"), st.sampled_from(_LABELS).map(characters)),
    "ENUM('','x')": st.integers(0, 2).map(str),
    "SET('a','b c','d''e','ü')": st.integers(0, 15).map(str),
    "JSON": _JSON.map(json.dumps).map(characters),
    "GEOMETRY": st.builds("ST_GeomFromText('{}', {})".format, _SHAPES, st.sampled_from([0, 4326])),
    "UUID": quoted(st.uuids()),
    "INET4": quoted(st.ip_addresses(v=4)),
    "INET6": quoted(st.ip_addresses(v=6)),
}  # fmt: skip
"""By the type's words in a definition."""
