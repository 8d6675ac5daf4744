"""How a database sorts text and what it takes for a letter (PostgreSQL documentation, 24.1): set when it is made, and
part of no definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

from exporters.postgres.identifiers import quote_literal
from exporters.postgres.query_rows import fetch

_PROVIDERS = {"b": "builtin", "c": "libc", "i": "icu"}
_QUERY = (
    "SELECT to_jsonb(d) AS found FROM pg_catalog.pg_database d WHERE datname = pg_catalog.current_database()"
)


def read_locale(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """Return ``provider``, ``locale`` and where there are some ``rules`` of the database; ``ctype`` where libc has
    another one for that.
    """
    row: Mapping[str, Any] = fetch(connection, _QUERY)[0]["found"]
    provider = _PROVIDERS.get(str(row.get("datlocprovider", "c")), "libc")
    collate, ctype = str(row["datcollate"]), str(row["datctype"])
    locale = {"provider": provider, "locale": collate}
    if provider != "libc":
        locale["locale"] = str(row.get("datlocale") or row.get("daticulocale") or "")
    elif _plain(ctype) != _plain(collate):
        locale["ctype"] = ctype
    rules = row.get("daticurules")
    return locale | ({"rules": str(rules)} if rules else {})


def same(first: Mapping[str, str], second: Mapping[str, str]) -> bool:
    """Tell whether two databases sort alike, as far as names show it: ``C.utf8`` is ``C.UTF-8``."""
    return {key: _plain(value) for key, value in first.items()} == {
        key: _plain(value) for key, value in second.items()
    }


def create_words(locale: Mapping[str, str]) -> str:
    """Return the clause of CREATE DATABASE for it."""
    if locale["provider"] == "libc":
        ctype = locale.get("ctype", locale["locale"])
        return f"LC_COLLATE {quote_literal(locale['locale'])} LC_CTYPE {quote_literal(ctype)}"
    clause = f"LOCALE_PROVIDER {locale['provider']} {locale['provider'].upper()}_LOCALE"
    rules = f" ICU_RULES {quote_literal(locale['rules'])}" if "rules" in locale else ""
    return f"{clause} {quote_literal(locale['locale'])}{rules}"


def _plain(name: str) -> str:
    plain = name.lower().replace("-", "")
    return "c" if plain == "posix" else plain
