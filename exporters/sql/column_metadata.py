"""The metadata of the fields of a part: what each column is, so that a part is read without anything else."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

TYPE = b"moveout.type"
KIND = b"moveout.kind"
GENERATED = b"moveout.generated"
EXACT_OF = b"moveout.exact_of"
PLAIN = b"moveout.plain"
CHARACTERS = b"moveout.characters"
ENCODING = b"moveout.encoding"
COLLATION = b"moveout.collation"
NOT_NULL = b"moveout.not_null"

OWN = b"\xff"
"""How the text of a value begins that stands in the database's own encoding: no UTF-8 has this byte."""


def has(field: pa.Field, key: bytes) -> bool:
    """Tell whether a field has an entry."""
    return field.metadata is not None and key in field.metadata


def sides_of(schema: pa.Schema) -> dict[str, str]:
    """Return the names of the side columns by those of their columns."""
    return {field.metadata[EXACT_OF].decode(): field.name for field in schema if has(field, EXACT_OF)}


def columns_in(schema: pa.Schema, *, generated: bool) -> Sequence[pa.Field]:
    """Return the fields of the table's own columns, those that a server computes only with ``generated``."""
    return [
        field for field in schema if not has(field, EXACT_OF) and (generated or not has(field, GENERATED))
    ]
