"""What MySQL keeps within JSON beside its text: decimals, dates, times and bytes, which print as numbers and strings.

The text leaves, so their types do not, save for decimals whose digits no double prints. Whether a column has any is
asked of the server.
"""

from __future__ import annotations

from collections.abc import Sequence

from exporters.api import Loss
from exporters.mysql.catalog import Column, Table
from exporters.mysql.identifiers import quote_literal, quote_name

PROPERTY = "types within JSON"
_HIDDEN = ("DECIMAL", "UNSIGNED INTEGER", "DATE", "TIME", "DATETIME", "BLOB", "BIT", "OPAQUE")
_BELOW = ("$**.*", "$**[*]")
"""Members of objects, and cells of arrays, at any depth."""


def json_columns(table: Table) -> Sequence[Column]:
    """Return the columns of MySQL's JSON type; MariaDB has none: its JSON is a text."""
    return [column for column in table.columns if column.sql_type == "json" and not column.generated]


def types_query(table: Table, column: Column) -> str:
    """Return what asks for the types that a column's text does not show, separated by commas, in order."""
    hidden = ", ".join(map(quote_literal, _HIDDEN))
    json = f"moved.{quote_name(column.name)}"
    source = f"FROM {table.label} AS moved"
    parts = [f"SELECT JSON_TYPE({json}) AS found {source}"]
    parts += [
        f"SELECT JSON_TYPE(below.value) {source},"
        f" JSON_TABLE({json}, {quote_literal(path)} COLUMNS (value JSON PATH '$')) AS below"
        for path in _BELOW
    ]
    types = " UNION ALL ".join(parts)
    return (
        "SELECT COALESCE(GROUP_CONCAT(DISTINCT found ORDER BY found SEPARATOR ', '), '')"
        f" FROM ({types}) AS types WHERE found IN ({hidden})"
    )


def loss_of(table: Table, column: Column, types: str) -> Loss:
    """Return the row of the ledger for a column that has such types, or could not be asked."""
    reason = (
        f"{types}: its text does not show them; they come back as the numbers and strings that they print as"
    )
    return Loss(f"{table.label}.{quote_name(column.name)}", PROPERTY, reason)
