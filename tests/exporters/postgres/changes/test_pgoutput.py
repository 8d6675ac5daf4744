"""What a server sends is read back; what is cut off or unknown is named."""

import contextlib

import pytest

from exporters.errors import SourceDamagedError
from exporters.postgres.changes.pgoutput import (
    UNCHANGED,
    Begin,
    Column,
    Commit,
    Delete,
    Insert,
    Relation,
    Truncate,
    Update,
    decode,
)
from tests.exporters.postgres.databases import fetch, run_sql
from tests.tools.changes import SqlSlot

LONG = "ALTER TABLE t ALTER long SET STORAGE EXTERNAL"
SCRIPT = f"""
CREATE TABLE t (id int PRIMARY KEY, n numeric(5,2), long text, double int GENERATED ALWAYS AS (id * 2) STORED); {LONG};
CREATE TABLE whole (a int, b text); ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE "o""dd"."ü" (id int PRIMARY KEY REFERENCES t ON DELETE CASCADE);
"""


@pytest.fixture(scope="module")
def payloads(postgres):
    """The messages of one transaction."""
    url = postgres.database()
    run_sql(url, 'CREATE SCHEMA "o""dd"')
    run_sql(url, SCRIPT)
    with contextlib.closing(SqlSlot(url, "decoded")) as slot:
        run_sql(
            url,
            "BEGIN; INSERT INTO t VALUES (1, 1.5, repeat('x', 9000)), (2, NULL, ''); UPDATE t SET n = 2 WHERE id = 1;"
            "UPDATE t SET id = 3 WHERE id = 2; DELETE FROM t WHERE id = 3; INSERT INTO whole VALUES (NULL, E'a\\nü');"
            "UPDATE whole SET b = 'c'; DELETE FROM whole; TRUNCATE t RESTART IDENTITY CASCADE; COMMIT",
        )
        oids = dict(fetch(url, "SELECT relname, oid FROM pg_class WHERE relname IN ('t', 'whole', 'ü')"))
        return [message.payload for message in slot.messages()], oids


def test_messages_of_a_server(payloads):
    messages, oids = payloads
    t, whole, odd = oids["t"], oids["whole"], oids["ü"]
    begin, *changes, commit = (decode(payload) for payload in messages)
    assert isinstance(begin, Begin)
    assert isinstance(commit, Commit)
    assert (begin.final_position, begin.committed_at) == (commit.position, commit.committed_at)
    assert commit.end_position > commit.position > 0
    columns = (Column("id", 23, -1, True), Column("n", 1700, 327686, False), Column("long", 25, -1, False))
    assert changes[:10] == [
        Relation(t, "public", "t", "d", columns),
        Insert(t, (b"1", b"1.50", b"x" * 9000)),
        Insert(t, (b"2", None, b"")),
        Update(t, None, False, (b"1", b"2.00", UNCHANGED)),
        Update(t, (b"2", None, None), False, (b"3", None, b"")),
        Delete(t, (b"3", None, None), False),
        Relation(whole, "public", "whole", "f", (Column("a", 23, -1, True), Column("b", 25, -1, True))),
        Insert(whole, (None, "a\nü".encode())),
        Update(whole, (None, "a\nü".encode()), True, (None, b"c")),
        Delete(whole, (None, b"c"), True),
    ]
    assert Relation(odd, 'o"dd', "ü", "d", (Column("id", 23, -1, True),)) in changes[10:]
    assert isinstance(changes[-1], Truncate)
    assert (sorted(changes[-1].relations), changes[-1].restart_identity) == (sorted([t, odd]), True)


def test_each_shortened_message_is_an_error(payloads):
    for payload in payloads[0]:
        for length in {1, 2, 5, 6, 8, 12, len(payload) // 2, len(payload) - 1}:
            if length < len(payload):
                with pytest.raises(SourceDamagedError, match="cut off"):
                    decode(payload[:length])


@pytest.mark.parametrize("payload", [b"", b"Sx", b"I\0\0\0\1Kx", b"I\0\0\0\1N\0\1b\0\0\0\1x"])
def test_unknown_messages_are_errors(payload):
    with pytest.raises(SourceDamagedError, match=r"protocol 1|a row of the kind|a value of the kind"):
        decode(payload)
