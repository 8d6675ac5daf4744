"""Whoever can write to the location may have changed segments: what does not fit is named, and never applied.

Hashes fit where the case does not say otherwise: an attacker computes them, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import secrets
import shutil
from functools import partial

import psycopg
import pyarrow as pa
import pytest

from exporters.changes import MessageKind
from exporters.mysql.changes.log import open_change_log as open_mysql_log
from exporters.mysql.control_tables import ControlTables
from exporters.postgres.changes.log import open_change_log as open_postgres_log
from migrate.changes.apply import Applying
from migrate.changes.capture import Capture, resume_position
from migrate.changes.segments import SegmentFolder
from migrate.errors import BusyError, DamageError, GoneError, MoveoutError
from migrate.restore.mysql.changes.change_writer import open_change_writer as open_mysql_writer
from migrate.restore.mysql.changes.follow_marks import FollowDetails
from migrate.restore.mysql.changes.follow_marks import begin_mark as begin_mysql_mark
from migrate.restore.postgres.changes.change_writer import open_change_writer as open_postgres_writer
from migrate.restore.postgres.changes.follow_marks import begin_mark
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.registry import open_location
from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres import databases as postgres
from tests.tools.waiting import eventually, stream_of

TABLES = """
CREATE TABLE goods (id int PRIMARY KEY, note varchar(40), n int);
CREATE TABLE untouched (id int PRIMARY KEY, note varchar(40), n int);
INSERT INTO goods VALUES (1, 'one', 1), (2, 'two', 2); INSERT INTO untouched VALUES (1, 'kept', 1);
"""
CHANGES = (
    "INSERT INTO goods VALUES (3, 'three', 3)",
    "UPDATE goods SET note = 'changed', n = 7 WHERE id = 1",
    "DELETE FROM goods WHERE id = 2",
)
ROWS = "SELECT id, note, n FROM goods ORDER BY id"
STATES = [
    [(1, "one", 1), (2, "two", 2)],
    [(1, "one", 1), (2, "two", 2), (3, "three", 3)],
    [(1, "changed", 7), (2, "two", 2), (3, "three", 3)],
    [(1, "changed", 7), (3, "three", 3)],
]
"""The rows of the destination after each transaction."""

ROUNDS, SEED = int(os.environ.get("MOVEOUT_HOSTILE", "8")), int(os.environ.get("MOVEOUT_SEED", "1"))


class Kept:
    """What was captured of a source, the destination, and an open connection to it. ``mark``: writes there that it is
    as it was at the base.
    """

    def __init__(self, destination, base, folder, open_writer, connection, mark):
        self.destination, self.base, self.origin = destination, base, folder
        self._open_writer, self._connection, self._mark = open_writer, connection, mark

    def fetch(self, query):
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def reset(self):
        """Make the destination as it was."""
        with self._connection.cursor() as cursor:
            cursor.execute("DELETE FROM goods")
            cursor.execute("INSERT INTO goods VALUES (1, 'one', 1), (2, 'two', 2)")
        self._mark()

    def _opened(self):
        """Return a writer, or None: the server ends the session of the last one a moment after it was closed."""
        with contextlib.suppress(BusyError):
            return self._open_writer(self.destination, {}, "app")

    def apply(self, folder):
        last = folder.last()
        with contextlib.closing(eventually(self._opened)) as writer:
            return Applying(folder, writer).run(
                CancellationToken(), lambda mark: last is None or mark.place >= last.boundary
            )


def capture(log, base, folder, run_sql, url):
    """Keep the changes, each transaction in a segment of its own."""
    for statement in CHANGES:
        run_sql(url, statement)
        end = log.end(base.log)
        with stream_of(log, base.log, resume_position(folder, base.position)) as stream:
            Capture(folder).run(stream, CancellationToken(), end=end)


@pytest.fixture(scope="module")
def kept_postgres(postgres, other_postgres, tmp_path_factory):
    yield from keep(postgres, other_postgres, tmp_path_factory.mktemp("captured"))


@pytest.fixture(scope="module")
def kept_mariadb(followed_mariadb, other_mariadb, tmp_path_factory):
    yield from keep(followed_mariadb, other_mariadb, tmp_path_factory.mktemp("captured"))


@pytest.fixture(params=["postgres", "mariadb"])
def kept(request):
    return request.getfixturevalue(f"kept_{request.param}")


def keep(old_server, new_server, path):
    """Yield what is captured of a database of one server, with another one of the other."""
    old, new, case = old_server.database(), new_server.database(), f"case-{secrets.token_hex(4)}"
    if old.startswith("mysql"):
        databases, log = mysql, open_mysql_log(old, {}, case)
    else:
        databases, log = postgres, open_postgres_log(old, {}, case)
    for url in (old, new):
        databases.run_sql(url, TABLES)
    with log.open_base() as base:
        pass
    folder = SegmentFolder(open_location(str(path)), "app", base.position)
    folder.begin()
    capture(log, base, folder, databases.run_sql, old)
    assert folder.last().number == len(CHANGES)

    open_writer = open_mysql_writer if databases is mysql else open_postgres_writer
    with contextlib.ExitStack() as stack:
        if databases is mysql:
            connection = stack.enter_context(mysql.open_database(new))
            marking = stack.enter_context(contextlib.closing(mysql.session(new)))
            details = FollowDetails(base.log["database"], base.log["stem"])
            table = ControlTables.apart_from(()).follow
            mark = partial(begin_mysql_mark, marking, table, "app", base.position, details)
        else:
            connection = stack.enter_context(psycopg.connect(new, autocommit=True))
            mark = partial(begin_mark, connection, "app", base.position)
        yield Kept(new, base, path, open_writer, connection, mark)
    log.drop(base.log)


class Segments:
    """The files of a copy, to be changed. ``refit`` makes the records fit again."""

    def __init__(self, kept, path):
        shutil.copytree(kept.origin, path, dirs_exist_ok=True)
        self.folder = SegmentFolder(open_location(str(path)), "app", kept.base.position)
        self.path = path / "changes" / "app" / f"{kept.base.position:016x}"

    def record(self, number):
        return self.path / f"{number:010d}.json"

    def file(self, number):
        (file,) = self.path.glob(f"{number:010d}-*.zst")
        return file

    def raw(self, number):
        record = json.loads(self.record(number).read_bytes())
        return pa.Codec("zstd").decompress(self.file(number).read_bytes(), record["raw_bytes"], asbytes=True)

    def refit(self, number, raw, **fields):
        """Write other messages into a segment, and records that fit."""
        self.file(number).unlink()
        data = pa.Codec("zstd").compress(raw, asbytes=True)
        digest = hashlib.sha256(data).hexdigest()
        (self.path / f"{number:010d}-{digest[:16]}.zst").write_bytes(data)
        known = {"size_bytes": len(data), "raw_bytes": len(raw), "sha256": digest}
        self.change_record(number, **{**known, **fields})

    def change_record(self, place, **fields):
        """Change a record, and those behind it, so that each is the successor of the one before."""
        record = json.loads(self.record(place).read_bytes()) | fields
        self.record(place).write_text(json.dumps(record))
        if self.record(place + 1).exists():
            self.change_record(
                place + 1, previous=hashlib.sha256(self.record(place).read_bytes()).hexdigest()
            )

    def frames(self, number):
        """Return kind, position and payload of each message."""
        return [[message.kind, message.position, message.payload] for message in self._messages(number)]

    def _messages(self, number):
        return list(self.folder.read(self.folder.record(number)))

    def write_frames(self, number, frames):
        raw = b"".join(
            int(kind).to_bytes(1, "little")
            + position.to_bytes(8, "little")
            + len(payload).to_bytes(4, "little")
            + payload
            for kind, position, payload in frames
        )
        self.refit(number, raw, messages=len(frames))

    def change_payloads(self, number, change, kinds=(MessageKind.CHANGE,)):
        """Change the payloads of messages of some kinds."""
        frames = self.frames(number)
        for frame in frames:
            if frame[0] in kinds:
                frame[2] = change(frame[2])
        self.write_frames(number, frames)


def swap(segments):
    first, second = segments.record(1).read_bytes(), segments.record(2).read_bytes()
    segments.record(1).write_bytes(second)
    segments.record(2).write_bytes(first)


def flip(segments):
    data = bytearray(segments.file(2).read_bytes())
    data[len(data) // 2] ^= 1
    segments.file(2).write_bytes(bytes(data))


def cut_frame(segments):
    segments.refit(2, segments.raw(2)[:-3])


def unknown_kind(segments):
    segments.refit(2, b"\x63" + segments.raw(2)[1:])


def huge_length(segments):
    raw = segments.raw(2)
    segments.refit(2, raw[:9] + b"\xff\xff\xff\xff" + raw[13:])


def leave_out(segments):
    frames = segments.frames(2)
    segments.refit(2, segments.raw(2)[: -13 - len(frames[-1][2])])


FIELDS = {
    "messages": [0, 1, -1, None, True, "3", [], 1.5],
    "raw_bytes": [0, -1, 2**40, 2**62, 2**70, None, "x"],
    "number": [1, 3, -1, "2"],
    "boundary": [[9, 9], [2, 2**62], [-1, 0], [2], "x", [None, None], {}],
    "after": [[2, 1], [-1, 0], [1, "x"]],
    "sha256": ["../../../../../../etc/passwd", "0" * 64, "", 7, None],
    "previous": ["0" * 64, "", 7],
    "position": [-1, 2**63, 2**70, "x", None],
    "written": ["x", "2026-01-01", 5],
}
DAMAGED = {
    "flipped byte": flip,
    "swapped records": swap,
    "missing segment": lambda segments: segments.file(2).unlink(),
    "missing record": lambda segments: segments.record(2).unlink(),
    "doubled record": lambda segments: segments.record(4).write_bytes(segments.record(3).read_bytes()),
    "record of no number": lambda segments: (segments.path / "x.json").write_text("{}"),
    "no JSON": lambda segments: segments.record(2).write_text("{"),
    "no UTF-8": lambda segments: segments.record(2).write_bytes(b'{"a": "\xff"}'),
    "a list": lambda segments: segments.record(2).write_text("[[[[]]]]"),
    "deep": lambda segments: segments.record(2).write_text("[" * 100_000),
    "empty record": lambda segments: segments.record(2).write_text(""),
    "cut file that fits": cut_frame,
    "unknown kind": unknown_kind,
    "huge length": huge_length,
    "message left out": leave_out,
    "no zstd": lambda segments: segments.refit(2, segments.raw(2), raw_bytes=5),
}
OTHER_FIELDS = {
    f"{name} {value!r:.30}": lambda segments, name=name, value=value: segments.change_record(
        2, **{name: value}
    )
    for name, values in FIELDS.items()
    for value in values
}
"""Records whose fields have other values. In most runs, of each field another value and one of another type."""
MOST_RUNS = {f"{name} {value!r:.30}" for name, values in FIELDS.items() for value in (values[0], values[-1])}
DAMAGED |= OTHER_FIELDS
UNREADABLE = {
    "empty changes": lambda payload: b"",
    "one byte": lambda payload: payload[:1],
    "half": lambda payload: payload[: len(payload) // 2],
    "ones": lambda payload: b"\xff" * len(payload),
    "zeros": lambda payload: bytes(len(payload)),
    "doubled": lambda payload: payload * 2,
}


def is_usual(engine, case):
    """Tell whether a damage is tried in most runs. The same code reads the files of all engines, so one is enough."""
    if engine == "mariadb":
        return case in {"flipped byte", "message left out"}
    return case not in OTHER_FIELDS or case in MOST_RUNS


@pytest.mark.parametrize(
    ("kept", "case"),
    [
        pytest.param(
            engine,
            case,
            marks=() if is_usual(engine, case) else pytest.mark.torture,
        )
        for engine in ("postgres", "mariadb")
        for case in DAMAGED
    ],
    indirect=["kept"],
)
def test_damaged_files_are_named_and_nothing_of_them_is_applied(kept, tmp_path, case):
    segments = Segments(kept, tmp_path)
    kept.reset()
    DAMAGED[case](segments)
    with pytest.raises((DamageError, GoneError), match="changes/app/"):
        kept.apply(segments.folder)
    assert kept.fetch(ROWS) in STATES[:3]


@pytest.mark.parametrize("kind", ["CHANGE", "SHAPE"])
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=() if case in {"half", "ones", "doubled"} else pytest.mark.torture)
        for case in UNREADABLE
    ],
)
def test_messages_that_are_none_of_a_log_are_named_and_not_applied(kept, tmp_path, case, kind):
    segments = Segments(kept, tmp_path)
    kept.reset()
    for number in (2, 3):  # a segment need not have shapes
        segments.change_payloads(number, UNREADABLE[case], (MessageKind[kind],))
    is_refused = False
    try:
        kept.apply(segments.folder)
    except MoveoutError:
        is_refused = True
    rows = kept.fetch(ROWS)
    assert rows in (STATES[:2] if is_refused else [STATES[3]])
    assert is_refused or kind == "SHAPE"


@pytest.mark.parametrize("rounds", [ROUNDS, pytest.param(25 * ROUNDS, marks=pytest.mark.torture)])
def test_random_changes_of_messages_end_in_an_error_or_in_other_rows_of_that_table(kept, tmp_path, rounds):
    """Never by an exception of Python's own, and never in another table. MOVEOUT_SEED makes others."""
    random_numbers, ends = random.Random(SEED), set()
    for round_number in range(rounds):
        segments = Segments(kept, tmp_path / str(round_number))
        kept.reset()

        def change(payload):
            data = bytearray(payload)
            for _ in range(random_numbers.choice((1, 1, 2, 8))):
                data[random_numbers.randrange(len(data))] = random_numbers.choice(
                    (0, 1, 0x7F, 0xFF, 0x27, 0x22)
                )
            return bytes(data)

        number = random_numbers.choice((1, 2, 3))
        kinds = random_numbers.choice([(kind,) for kind in MessageKind])
        segments.change_payloads(number, change, kinds)
        try:
            kept.apply(segments.folder)
            ends.add("applied")
        except MoveoutError as error:
            ends.add(type(error).__name__)
    assert kept.fetch("SELECT id, note, n FROM untouched") == [(1, "kept", 1)]
    assert len(ends) > 1


OTHER_TABLES = [
    "goods; DROP TABLE untouched",
    'x" (id) VALUES (1); DROP TABLE untouched; --',
    "x`; DROP TABLE untouched",
    "\u20ac" * 20,
    "a" * 250,
]


@pytest.mark.parametrize(
    "name",
    [*OTHER_TABLES[:2], *(pytest.param(name, marks=pytest.mark.torture) for name in OTHER_TABLES[2:])],
)
def test_a_name_is_never_sql(kept, tmp_path, name):
    segments = Segments(kept, tmp_path)
    kept.reset()
    for number in (1, 2, 3):
        segments.change_payloads(
            number, lambda payload: renamed(payload, b"goods", name.encode()), (MessageKind.SHAPE,)
        )
    with pytest.raises(MoveoutError):
        kept.apply(segments.folder)
    assert kept.fetch(ROWS) == STATES[0]
    assert kept.fetch("SELECT id, note, n FROM untouched") == [(1, "kept", 1)]


def renamed(payload, old, new):
    """Return a shape of a table of another name, in either log."""
    for before, after in (
        (bytes([len(old)]) + old, bytes([len(new) % 256]) + new),
        (old + b"\0", new + b"\0"),
    ):
        if before in payload and (before[0] == len(old) or b"public\0" in payload):
            return payload.replace(before, after, 1)
    return payload


@pytest.mark.parametrize(
    "table", ["pg_catalog.pg_authid", "moveout_restore.follow", "information_schema.sql_features"]
)
def test_tables_of_the_server_and_of_moveout_are_refused(kept, tmp_path, table):
    if kept.destination.startswith("mysql"):
        pytest.skip("MariaDB: names of other databases are not in an event that is applied")
    segments = Segments(kept, tmp_path)
    kept.reset()
    name = table.replace(".", "\0").encode() + b"\0"
    for number in (1, 2, 3):
        segments.change_payloads(
            number, lambda payload: payload.replace(b"public\0goods\0", name), (MessageKind.SHAPE,)
        )
    with pytest.raises(DamageError, match="no source sends"):
        kept.apply(segments.folder)
