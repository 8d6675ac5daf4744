"""Parquet parts of MySQL and MariaDB tables; see ``exporters.engine.PartReader``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from exporters.engine import Texts
from exporters.mysql.identifiers import quote_name
from exporters.mysql.rows.arrow_to_rows import readable_values, texts_of
from exporters.mysql.rows.long_rows import payload_pieces
from exporters.row_digest import RowsDigest, digest_pieces, digest_texts
from exporters.sql.columns import columns_in
from exporters.sql.large_values.long_values import LongRow
from exporters.sql.parquet_read import READ_ERRORS, open_part, rows_of


class MysqlPartReader:
    """The methods are those of ``PartReader``."""

    read_errors: tuple[type[Exception], ...] = READ_ERRORS

    def digest_part(self, file: Any, rows: int) -> RowsDigest:
        """Render the part back to the server's text."""
        del rows
        digest = RowsDigest()
        for batch in rows_of(open_part(file)):
            if isinstance(batch, LongRow):
                digest += digest_pieces(payload_pieces(batch))
            else:
                digest += digest_texts(texts_of(batch))
        return digest

    def part_columns(self, file: Any) -> Sequence[str]:
        """Return the table's own columns."""
        return list(columns_in(open_part(file).schema_arrow))

    def part_texts(self, file: Any) -> Iterator[Texts]:
        """Render the part back to the server's text, a few thousand rows at a time."""
        for batch in rows_of(open_part(file)):
            yield [b"".join(payload_pieces(batch))] if isinstance(batch, LongRow) else texts_of(batch)

    def split(self, text: bytes) -> list[bytes | None]:
        """Return the values, those that are no characters in hexadecimal."""
        return readable_values(text)

    def label(self, schema: str, name: str) -> str:
        """Return the quoted name; the destination's database may have another name than the source's."""
        del schema
        return quote_name(name)
