"""The plan of a database: the chunks of each table, decided once, kept in the workspace, used again after a crash.

A table keeps its number for the life of the bundle. Its chunks are half-open ranges, of whatever the engine cuts a
table by, such that every row, also one that appears later, lies in exactly one of them.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct

from exporters.api import Unit
from exporters.errors import reading_state
from exporters.structs import as_dict

NAME = "plan.json"
"""Where a plan lies in the workspace."""
NAME_CHARACTERS = 80
"""At most so many characters of a table's directory are its schema and name."""
_LEAST_SCHEMA_CHARACTERS = 24
LEAST_SHARE_BYTES = 8 * 2**20
"""A share of a database is no smaller, see ``share_bytes``."""
_SMALL = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_OTHER_CHARACTERS = re.compile(r"[^a-z0-9_-]+")

Range = tuple[Any, Any]
"""First and first-of-the-next, in plain JSON; None where there is no end."""


class Table(Protocol):
    """What a plan needs to know of a table."""

    @property
    def schema(self) -> str:
        """Its schema, "" where the engine has none."""
        ...

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of what a finished chunk depends on apart from its rows."""
        ...


AnyTable = TypeVar("AnyTable", bound=Table)


class Cut(Struct, frozen=True):
    """A table's chunks, and what else was decided about it: the kinds of columns whose types do not say."""

    ranges: tuple[Range, ...]
    kinds: tuple[str, ...] = ()


class PlannedTable(Struct, frozen=True):
    """A table's number and chunks. ``fingerprint`` as ``Table.fingerprint``; ``kinds`` as in ``Cut``."""

    number: int
    schema: str
    name: str
    fingerprint: str
    ranges: tuple[Range, ...]
    kinds: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """Schema and name."""
        return self.schema, self.name

    @property
    def directory(self) -> str:
        """Where its parts lie, see ``table_directory``."""
        return table_directory(self.number, self.schema, self.name)


class Plan(Struct, frozen=True):
    """All tables, ordered by number."""

    tables: tuple[PlannedTable, ...]

    def dump(self) -> bytes:
        """Return it as JSON."""
        return json.dumps([as_dict(table) for table in self.tables]).encode()

    @staticmethod
    def load(data: bytes | None) -> Plan | None:
        """Read what ``dump`` wrote; None where nothing was written. Raises ``SourceStateError``."""
        if data is None:
            return None
        with reading_state(NAME):
            return Plan(tuple(msgspec.convert(json.loads(data), list[PlannedTable])))


def share_bytes(sizes: Iterable[int], workers: int) -> int:
    """Return the share of each worker of tables of these sizes. No chunk is larger, so that every worker has something
    to do, also where one table is most of a small database.
    """
    return max(LEAST_SHARE_BYTES, sum(sizes) // max(1, workers))


def plan_tables(tables: Sequence[AnyTable], former: Plan | None, cut: Callable[[AnyTable], Cut]) -> Plan:
    """Return the plan for ``tables``. A table keeps its chunks of the ``former`` plan while its fingerprint is the
    same.
    """
    known = {table.key: table for table in former.tables} if former else {}
    unused = max((table.number for table in known.values()), default=0) + 1
    planned = []
    for table in tables:
        old = known.get((table.schema, table.name))
        if old is not None and old.fingerprint == table.fingerprint:
            planned.append(old)
            continue
        number = old.number if old else unused
        unused += old is None
        plan = cut(table)
        planned.append(
            PlannedTable(number, table.schema, table.name, table.fingerprint, plan.ranges, plan.kinds)
        )
    return Plan(tuple(sorted(planned, key=lambda table: table.number)))


def units_of(planned: PlannedTable, items: int, size_bytes: int) -> Iterator[Unit]:
    """Yield a table's units; its rows and bytes are spread evenly."""
    count = len(planned.ranges)
    for chunk in range(count):
        rest = items % count if chunk == count - 1 else 0
        yield Unit(
            id=unit_id(planned.directory, chunk),
            items=items // count + rest,
            size_bytes=size_bytes // count,
            spec=spec(planned, chunk),
        )


def table_directory(number: int, schema: str, name: str) -> str:
    """Return the directory of a table's parts, relative to ``data/<source>/``: ``tables/0017.social.posts``.

    The number makes it unique. Schema and name are for people: capitals become small, and each run of characters
    other than ``a-z 0-9 _ -`` becomes ``_``. No segment ends with a dot, and none is a reserved name of Windows,
    since what stands before the first dot is the number.
    """
    schema, name = _reduced(schema), _reduced(name) or "_"
    if schema:
        name = f"{schema[: max(_LEAST_SCHEMA_CHARACTERS, NAME_CHARACTERS - 1 - len(name))]}.{name}"
    return f"tables/{number:04d}.{name[:NAME_CHARACTERS]}"


def _reduced(name: str) -> str:
    return _OTHER_CHARACTERS.sub("_", name.translate(_SMALL))


def unit_id(directory: str, chunk: int) -> str:
    """Return the id of a chunk of the table in this directory."""
    return f"{directory}/{chunk:06d}"


def spec(planned: PlannedTable, chunk: int) -> dict[str, Any]:
    """Return the spec of a unit: what its export needs. A finished unit counts only while its spec is the same."""
    return {
        "table": planned.number,
        "directory": planned.directory,
        "chunk": chunk,
        "range": list(planned.ranges[chunk]),
        "fingerprint": planned.fingerprint,
        **({"kinds": list(planned.kinds)} if planned.kinds else {}),
    }
