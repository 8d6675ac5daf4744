"""Parquet parts of MySQL and MariaDB tables; see ``exporters.engine.PartReader``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from exporters.engine import Texts
from exporters.mysql.identifiers import quote_name
from exporters.mysql.rows.arrow_to_rows import readable_values
from exporters.mysql.rows.parquet_read import digest_part, part_texts
from exporters.row_digest import RowsDigest
from exporters.sql.columns import columns_in
from exporters.sql.parquet_read import READ_ERRORS, open_part


class MysqlPartReader:
    """The methods are those of ``PartReader``."""

    read_errors: tuple[type[Exception], ...] = READ_ERRORS

    def digest_part(self, file: Any, rows: int) -> RowsDigest:
        """Render the part back to the server's text."""
        del rows
        return digest_part(file)

    def part_columns(self, file: Any) -> Sequence[str]:
        """Return the table's own columns."""
        return list(columns_in(open_part(file).schema_arrow))

    def part_texts(self, file: Any) -> Iterator[Texts]:
        """Render the part back to the server's text."""
        return part_texts(file)

    def split(self, text: bytes) -> list[bytes | None]:
        """Return the values, those that are no characters in hexadecimal."""
        return readable_values(text)

    def label(self, schema: str, name: str) -> str:
        """Return the quoted name; the destination's database may have another name than the source's."""
        del schema
        return quote_name(name)
