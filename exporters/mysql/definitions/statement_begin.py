"""How the statements begin that SHOW CREATE prints: what they make, under which name, in which database."""

from __future__ import annotations

import re
from functools import cache

_S = r"(?:\s|/\*(?!M?!)(?:[^*]|\*(?!/))*\*/|(?:--(?=\s)|\#)[^\n]*\n)"
"""Whitespace, or a comment."""
_NAME = r"(?:`(?:[^`]|``)*`|\"(?:[^\"]|\"\")*\"|[\w$\udc80-\udcff]+)"
_DEFINER = rf"DEFINER{_S}*={_S}*(?:{_NAME}|'[^']*')(?:@(?:{_NAME}|'[^']*'))?"
_WORDS = (
    rf"(?:{_DEFINER}|AGGREGATE|ALGORITHM=\w+|SQL{_S}+SECURITY{_S}+\w+|JSON(?:{_S}+RELATIONAL)?{_S}+DUALITY)"
)
_BEGIN = rf"(?P<begin>{_S}*CREATE{_S}+(?:{_WORDS}{_S}+)*{{kind}}{_S}+(?:IF{_S}+NOT{_S}+EXISTS{_S}+)?)"
_MADE = rf"{_BEGIN}(?:(?P<database>{_NAME}){_S}*\.{_S}*)?(?P<name>{_NAME})(?![\w$\udc80-\udcff]|{_S}*\.)"
"""How what SHOW CREATE prints of anything begins: what is made, and its name. Of a database are only views and
triggers.
"""
_REST = {
    "table": rf"{_S}*\(",
    "trigger": rf"(?:(?P<event>[^'\"`()]*?\bON{_S}+)(?:{_NAME}{_S}*\.{_S}*)?(?P<table>{_NAME}))?",
    "function": rf"{_S}*\(",
}
"""How it goes on. A function of a library has no parameters: its name is followed by RETURNS … SONAME."""


@cache
def made_by(kind: str) -> re.Pattern[str]:
    """Return the pattern of the beginning of what makes a ``kind``, with the groups ``name`` and ``database``."""
    words = kind.upper().replace(" ", rf"{_S}+")
    return re.compile(_MADE.replace("{kind}", words) + _REST.get(kind, ""), re.IGNORECASE | re.DOTALL)


def trigger_of_any_database(sql: str) -> str:
    """Return what makes a trigger without the database that whoever made it has named: servers print that."""
    match = made_by("trigger").match(sql)
    if match is None:
        return sql
    return f"{match['begin']}{match['name']}{match['event'] or ''}{match['table'] or ''}{sql[match.end() :]}"
