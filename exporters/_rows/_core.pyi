from typing import TypeAlias

from typing_extensions import Buffer

# What exporters._rows.__init__ expects of a core that was built from its sources.
INTERFACE: int

# Whether it is the text of all values as bytes, because one is none of the kind; the buffers of the Arrow array
# (validity, offsets, values; None for one that it has not); the number of NULLs. Of lists the items, instead of values.
_Column: TypeAlias = tuple[bool, Buffer | None, Buffer | None, Buffer | _Column, int]

# Rows, digest (little-endian) and columns.
_Block: TypeAlias = tuple[int, bytes, list[_Column]]

# A block of PostgreSQL's CSV lines, or of MySQL's packets; None where it is not exactly what the server sends for such
# columns. Kinds: three bytes for each column, see columns.h; without any the rows are only digested.
def parse(block: Buffer, kinds: bytes, are_packets: bool = False, /) -> _Block | None: ...

# The next rows of a statement of SQLite, and whether they are the last; None where SQLite says an error. Pointers: the
# statement, and six functions of its library, see sqlite_rows.h.
def sqlite_rows(pointers: bytes, kinds: bytes, most_rows: int, /) -> tuple[_Block | None, bool]: ...

# The rows that have arrived from a PostgreSQL server, up to one of more than so many bytes or another message; and the
# bytes that their messages take. Rows of COPY's text format become lines of CSV.
def whole_rows(received: Buffer, most_bytes: int, are_text: bool = False, /) -> tuple[bytearray, int]: ...

# The bytes of the rows that have arrived from a MySQL server: whole packets up to a payload of more than so many bytes,
# or to the end of the rows.
def whole_packets(received: Buffer, most_bytes: int, /) -> int: ...

# Rows of columns as COPY takes them in binary. Each column: its letter (see binary_rows.h), its parameter, the number
# of its first row in the buffers, and these (validity, offsets, values). Raises ValueError where they lack rows.
def binary_rows(
    columns: tuple[tuple[int, int, int, Buffer | None, Buffer | None, Buffer], ...], rows: int, /
) -> Buffer: ...

# The row that begins at a place of a message of pgoutput, and where it ends; None where it is cut off, or has a value
# of an unknown kind. The last argument stands for values that were not sent.
def pgoutput_row(
    message: bytes, start: int, unchanged: object, /
) -> tuple[tuple[object, ...], int] | None: ...
