"""``moveout prove``: a proof is written that an object or a part of a table is in a signed bundle."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from msgspec import Struct

from exporters import arrow_functions as pc
from exporters.sql.whole_parquet import reading, whole_batches
from migrate.bundle.reader import check_hash
from migrate.cli import app
from migrate.cli.common.options import CaseFile, known_location
from migrate.cli.common.session import Session
from migrate.cli.common.sources import load_case
from migrate.cli.common.terminal import Console, Text, plain
from migrate.cli.common.verb import verb
from migrate.custody.tree import bundle_tree, leaves
from migrate.custody.tree.leaves import Item, describe
from migrate.errors import OK, DamageError, GoneError, UsageError
from migrate.number_text import things
from migrate.storage.api import Store
from migrate.storage.file_reader import RandomAccess
from migrate.storage.local.whole_file import write_whole

SUFFIX = ".tlog-proof"


class Proved(Struct, frozen=True):
    """Files that were written, each the proof of one item."""

    location: str
    written: Sequence[tuple[str, Item]]
    exit_code: int = OK

    def as_json(self) -> dict[str, Any]:
        """Return files and items."""
        return {
            "location": self.location,
            "proofs": [{"file": file, "item": item} for file, item in self.written],
        }

    def draw(self, console: Console) -> None:
        """Print which file proves what."""
        for file, item in self.written:
            console.print(Text(f"{file}  proves {plain(describe(item))}"))
        file = shlex.quote(str(self.written[0][0])) if self.written else "FILE"
        console.print(
            f"→ whoever has the signer's public key checks it: moveout check-proof {file} --signers allowed"
        )


@verb(
    app,
    "prove",
    bwlimit=True,
    examples=(
        "prove bundle photos/cat.jpg --source media --to proofs",
        "prove bundle --source app --table public.customers --row id=7",
    ),
)
def prove_command(
    session: Session,
    location: Annotated[str, typer.Argument(metavar="LOCATION", help="The signed bundle.")],
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY", help="Keys of objects.")] = None,
    *,
    case: CaseFile = None,
    source: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this source.")] = None,
    table: Annotated[
        str | None, typer.Option(metavar="[SCHEMA.]TABLE", help="Prove the parts of a table.")
    ] = None,
    row: Annotated[
        str | None, typer.Option(metavar="COLUMN=VALUE", help="With --table: the part that holds this row.")
    ] = None,
    to: Annotated[Path, typer.Option(metavar="DIR", help="The directory for the proofs.")] = Path(),
) -> Proved:
    """Write a proof that an object, or a row, is in the bundle.

    For a row it proves the part of the table that holds the row. The file shows this item alone. Anyone who has the
    signer's public key can check it without the bundle.
    """
    endpoint = known_location([location], load_case(case))
    store = session.store(endpoint)
    _make_directory(to)
    if bool(keys) == bool(table) or (row and not table):
        named = keys[0] if keys else "photos/1.jpg"
        of_row = f"--table {shlex.quote(table or named)} --row {shlex.quote(row)}" if row else ""
        raise UsageError(
            "a proof is of objects, or of a table (--table), or of a row of it (--table and --row)",
            next_step=f"moveout prove {shlex.quote(store.location)} {of_row or shlex.quote(named)}",
        )
    parts = _TableParts(store, table, row, source) if table else None
    is_asked = parts.are_asked if parts else _of_keys(set(keys or ()), source)
    needle = leaves.key_field(keys[0]) if keys and len(keys) == 1 else ""
    written = []
    for proof in bundle_tree.prove(store, is_asked, needle):
        file = to / f"{sha256(proof.leaf).hexdigest()[:16]}{SUFFIX}"
        write_whole(file, proof.encode(), crash_point="prove.file")
        written.append((str(file), proof.item))
    missing = sorted(set(keys or ()) - {str(item.get("key")) for _, item in written})
    if not written and parts and parts.without_row:
        raise GoneError(
            f"the table {table} of the bundle at {store.location} has no row with {row}:"
            f" {things(parts.without_row, 'part')} looked through",
            next_step="write the value as the bundle has it; this shows rows: moveout sql"
            f" {shlex.quote(store.location)} {shlex.quote(f'FROM {table}')}",
        )
    if missing or not written:
        missing_item = repr(missing[0]) if missing else f"a part of the table {table}"
        raise GoneError(
            f"the bundle at {store.location} does not list {missing_item}",
            next_step=f"moveout ls {shlex.quote(store.location)} shows keys, and tables (which --table proves)",
        )
    return Proved(store.location, written)


def _of_keys(keys: set[str], source: str | None) -> Callable[[Item], bool]:
    return lambda item: item.get("key") in keys and source in {None, item["source"]}


class _TableParts:
    """The parts of a table, or those of them that hold a row. ``without_row``: how many parts do not. Raises
    ``UsageError`` where the row is not given as it should be.
    """

    def __init__(self, store: Store, table: str, row: str | None, source: str | None) -> None:
        self._store, self._table, self._row, self._source = store, table, row, source
        self._column, equals, self._value = (row or "=").partition("=")
        self.without_row = 0
        if not equals or any("\ud800" <= character <= "\udfff" for character in row or ""):
            raise UsageError(
                f"--row {row!r} is not COLUMN=VALUE", next_step="write both as UTF-8: --row id=12"
            )

    def are_asked(self, item: Item) -> bool:
        """Tell whether an item is one of them."""
        if item["kind"] != "part" or self._source not in {None, item["source"]}:
            return False
        if self._table not in {item["table"], f"{item['schema']}.{item['table']}", item["file"]}:
            return False
        if self._row is None:
            return True
        file = str(item["file"])
        if not part_with(self._store, file, self._column, self._value):
            self.without_row += 1
            return False
        check_hash(self._store, file, str(item["sha256"]))  # the row was seen in these bytes
        return True


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise UsageError(f"{path} cannot be made: {exc.strerror}") from exc


def part_with(store: Store, key: str, column: str, value: str) -> bool:
    """Tell whether a part has a row whose ``column`` reads ``value``, or whose exact text next to it does.

    Raises ``UsageError`` where there is no such column, ``DamageError`` where the part is missing or cannot be read.
    """
    try:
        with reading(key, "a table's part"), pq.ParquetFile(RandomAccess(store, key)) as parquet:
            present = parquet.schema_arrow.names
            names = [name for name in (column, f"{column}$exact") if name in present]
            for batch in whole_batches(parquet, 2**16, columns=names) if names else ():
                if any(pc.any(pc.equal(_text(batch[name]), value)).as_py() for name in names):
                    return True
    except GoneError as exc:
        raise DamageError(key, expected="a table's part", found="nothing") from exc
    if not names:
        raise UsageError(f"{key} has no column {column!r}", next_step=f"it has {', '.join(present)}")
    return False


def _text(column: pa.Array) -> pa.Array:
    """Return the values as text. Raises what ``reading`` translates: Parquet itself checks no value."""
    column.validate(full=True)
    try:
        return column.cast(pa.string())
    except pa.ArrowException:
        return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
