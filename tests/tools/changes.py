"""A change log that is read by SQL, for tests of those who only need messages."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import psycopg

from exporters.changes import Message, MessageKind
from exporters.postgres.changes import pgoutput
from exporters.postgres.sessions.connection import pin_statement
from migrate.changes.segments import START, SegmentFolder

_KINDS = {"B": MessageKind.BEGIN, "C": MessageKind.COMMIT, "R": MessageKind.SHAPE}
_ALL_TABLES = (
    "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class WHERE relkind = 'r' AND relpersistence = 'p'"
    " AND relnamespace::regnamespace::text !~ '^pg_|^information_schema$'"
)


@dataclass
class SqlSlot:
    """A slot and a publication of all tables that there are when it is made."""

    url: str
    name: str
    position: int = 0
    _connection: psycopg.Connection = field(init=False)

    def __post_init__(self) -> None:
        with contextlib.ExitStack() as stack:
            self._connection = stack.enter_context(psycopg.connect(self.url, autocommit=True))
            self._create()
            stack.pop_all()

    def _create(self) -> None:
        self._connection.execute(pin_statement())
        self._connection.execute("SELECT set_config('search_path', '', false)")
        (tables,) = self._connection.execute(_ALL_TABLES).fetchone()
        self._connection.execute(f"CREATE PUBLICATION {self.name} FOR TABLE {tables}".encode())
        query = f"SELECT lsn - '0/0' FROM pg_create_logical_replication_slot('{self.name}', 'pgoutput')"
        self.position = int(self._connection.execute(query.encode()).fetchone()[0])

    def close(self) -> None:
        self._connection.execute("SELECT pg_drop_replication_slot(%s)", (self.name,))
        self._connection.close()

    def messages(self) -> Iterator[Message]:
        """All messages that were not read yet."""
        query = (
            f"SELECT lsn - '0/0', data FROM pg_logical_slot_get_binary_changes('{self.name}', NULL, NULL,"
            f" 'proto_version', '1', 'publication_names', '{self.name}')"
        )
        for position, payload in self._connection.execute(query.encode(), binary=True):
            if payload[:1] == b"Y":
                continue
            decoded = pgoutput.decode(payload)
            after = decoded.end_position if isinstance(decoded, pgoutput.Commit) else int(position)
            kind = _KINDS.get(payload[:1].decode(), MessageKind.CHANGE)
            yield Message(kind, after, payload, pgoutput.relations_of(payload))

    def write_to(self, folder: SegmentFolder) -> None:
        """Write what was not read yet as one segment."""
        messages = list(self.messages())
        if messages:
            last = folder.last()
            position = next(m.position for m in reversed(messages) if m.kind is MessageKind.COMMIT)
            folder.write(messages, last, last.boundary if last else START, position)
