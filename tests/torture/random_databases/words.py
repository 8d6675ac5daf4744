"""Names and texts that are hard on whoever reads SQL."""

import random

_PARTS = (
    *("a", "B", "id", "name", "ü", "é", "日本", "ﾊﾝ", "ß", "İ", "Ж", "\u200b", "\u00a0x", "e\u0301"),
    *("`", "``", "'", "''", '"', "\\", "\\'", ".", "..", "a.b", "`.`", "\n", "\r\n", "\t", " ", "/", "//"),
    *(
        "$",
        "$$",
        ";",
        ";;",
        "--",
        "-- ",
        "#",
        "/*",
        "*/",
        "/*!",
        "(",
        ")",
        ",",
        "%",
        "_",
        "?",
        "@",
        "@@",
        ":=",
        "{}",
    ),
    *(
        "select",
        "TABLE",
        "key",
        "PRIMARY",
        "order",
        "group",
        "NULL",
        "DELIMITER",
        "DEFAULT",
        " AS ",
        "COLLATE",
    ),
    *("json", "KEY `", "CONSTRAINT", "CHECK", " ENGINE=", "COMMENT", "AUTO_INCREMENT", "x$exact", "$exact"),
    *(
        "\x01",
        "\x1f",
        "\x7f",
        "\\0",
        "\\n",
        "é\\",
        "$rowid",
        "row_start",
        "PARTITION BY",
        "USING HASH",
        "\ufeff",
    ),
)
_ASTRAL = ("😀", "𝕊")
"""No identifier may have these."""
WORDS = (
    *(
        "",
        " ",
        "a",
        "A",
        "abc",
        "abc  ",
        "Ä",
        "ß",
        "it's",
        '"',
        "\\",
        "\\'",
        "\n",
        "\r\n\t",
        "\x1a",
        "%",
        "_",
    ),
    *(
        "NULL",
        "\\N",
        "\\x41",
        "\\x!",
        "0",
        "-0",
        "1e400",
        "NaN",
        "0x41",
        "x'41'",
        "日本語",
        "ﾊﾝｶｸ",
        "Жук",
        "😀",
        "é",
    ),
    *(
        "\ufeffbom",
        "\u2028",
        "a\u0000b",
        "ไทย",
        "שלום",
        "𝕊",
        "…",
        "€",
        "\x80",
        "\xff",
        "x" * 250,
        "ü" * 300,
        "'" * 40,
    ),
    *('{"a": 1}', "[1, 2.50]", "<a/>", "2024-02-30", "-- x", "/* x */", "`", "``", "$$", ";", "a\\", "a''b"),
)


class Namer:
    """Makes names: none twice, whatever a server thinks of their case and accents."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._count = 0

    def __call__(self) -> str:
        self._count += 1
        odd = self._dice.random() < 0.45
        parts = self._dice.choices(_PARTS, k=self._dice.randint(1, 4)) if odd else ["n"]
        name = "".join(parts)[:40]
        at = self._dice.randint(0, len(name))
        return f"{name[:at]}{self._count}{name[at:]}".strip(" ") or f"n{self._count}"


def text(dice: random.Random) -> str:
    """A text of a few words."""
    chosen = "".join(dice.choices(WORDS, k=dice.randint(1, 3)))
    if dice.random() < 0.2:
        chosen += "".join(dice.choices(_PARTS + _ASTRAL, k=dice.randint(1, 5)))
    return chosen


def quote(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def literal(value: str) -> str:
    """A text as SQL, where backslashes escape."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''").replace("\0", "\\0") + "'"


def alternate(value: str) -> str:
    """A text as SQL, where backslashes are what they look like."""
    return "'" + value.replace("'", "''").replace("\0", "") + "'"
