"""What a URL demands of a connection holds for all that connect: libpq, its programs, and the driver for rows."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from exporters.errors import SourceError, SourceNotAllowedError, SourceUsageError
from exporters.postgres.definitions import dump_programs, pg_dump
from exporters.postgres.rows import asyncpg_feed, copy_feed
from exporters.postgres.sessions.connection import connect, parse_url
from scripts.servers import make_certificate
from tests.exporters.postgres.databases import export_database, fetch, run_sql
from tests.tools.bundles import read_bundle
from tests.tools.small_servers import serving

PASSWORD = "given-to-nobody-else"
_ASKS_FOR_TLS = (80877103).to_bytes(4)
_SEND_IT_IN_CLEAR = b"R" + (8).to_bytes(4) + (3).to_bytes(4)
_FIELDS = b"SFATAL\0VFATAL\0C28P01\0Mno\0\0"
_REFUSED = b"E" + (len(_FIELDS) + 4).to_bytes(4) + _FIELDS


@contextmanager
def impostor(certificate: Path | None = None) -> Iterator[tuple[int, list[bytes]]]:
    """Listen in a server's place, and ask for the password in clear. Yield the port, and what clients send."""
    heard: list[bytes] = []

    def answer(client: socket.socket) -> None:
        talk = client
        while (message := talk.recv(4096))[4:8] == _ASKS_FOR_TLS:
            talk.sendall(b"S" if certificate else b"N")
            if certificate:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(certificate, certificate.with_name("private.key"))
                talk = context.wrap_socket(talk, server_side=True)
        heard.append(message)
        talk.sendall(_SEND_IT_IN_CLEAR)
        heard.append(talk.recv(4096))
        talk.sendall(_REFUSED)

    with serving(answer) as port:
        yield port, heard


@pytest.mark.parametrize(
    "demand",
    [
        "sslmode=require",
        "sslmode=verify-full&sslrootcert={root}",
        "require_auth=scram-sha-256",
        "channel_binding=require",
    ],
)
def test_whoever_answers_in_a_servers_place_gets_no_password(tmp_path, monkeypatch, demand):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    shown, root = None, ""
    if "verify" in demand:
        shown, root = (make_certificate(tmp_path / name, "127.0.0.1") for name in ("shown", "trusted"))
    with impostor(shown) as (port, heard):
        with pytest.raises(SourceError) as error:
            connect(parse_url(f"postgresql://me@127.0.0.1:{port}/app?{demand.format(root=root)}"))
        assert isinstance(error.value, SourceUsageError | SourceNotAllowedError), error.value
        assert "PGSSLMODE" in error.value.next_step
    assert PASSWORD.encode() not in b"".join(heard)


def test_rows_and_definitions_are_read_under_the_demands_of_the_url(postgres, tmp_path, monkeypatch):
    url = postgres.database()
    run_sql(url, "CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n")
    drivers, environments, run = [], [], pg_dump._run
    for name in ("PsycopgFeed", "AsyncpgFeed"):
        module = copy_feed if name == "PsycopgFeed" else asyncpg_feed
        make = getattr(module, name)
        monkeypatch.setattr(module, name, partial(_recorded, drivers, name, make))
    monkeypatch.setattr(
        pg_dump,
        "_run",
        lambda words, environment, *rest, **options: (
            environments.append(environment.get("PGREQUIREAUTH")) or run(words, environment, *rest, **options)
        ),
    )
    assert export_database(f"{url}?require_auth=scram-sha-256", tmp_path).complete
    assert ({*drivers}, {*environments}) == ({"PsycopgFeed"}, {"scram-sha-256"})


def _recorded(drivers: list[str], name: str, make: Callable[..., object], *arguments: object) -> object:
    drivers.append(name)
    return make(*arguments)


def test_a_wrong_password_is_not_allowed_whatever_is_demanded(postgres, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(SourceNotAllowedError, match="password authentication failed"):
        connect(parse_url(f"{postgres.url}?require_auth=scram-sha-256"))


def test_a_pg_dump_that_does_not_know_a_demand_is_not_run(postgres, tmp_path, monkeypatch):
    for name in ("pg_dump", "pg_restore"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 15.7'\n")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setattr(dump_programs, "_directories", lambda: iter([tmp_path]))
    assert dump_programs.find_tools(15, {"require_auth": ""}).major == 15
    with closing(connect(parse_url(postgres.url))) as connection:
        assert dump_programs.find_tools(15, connection.info.get_parameters()).major == 15
    with pytest.raises(SourceUsageError, match="require_auth is demanded, and pg_dump 15 does not") as error:
        dump_programs.find_tools(15, {"require_auth": "scram-sha-256"})
    assert error.value.next_step.startswith("install postgresql-client-16")


def test_what_variables_set_in_our_sessions_is_not_taken_for_the_databases(postgres, tmp_path, monkeypatch):
    url = postgres.database()
    run_sql(url, "CREATE TABLE t AS SELECT 1 AS n")
    begun = fetch(url, "SELECT current_setting('timezone'), current_setting('datestyle')")
    (tmp_path / "services").write_text(
        "[other]\nclient_encoding=LATIN1\nhost=127.0.0.9\nuser=nobody\ndbname=x\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    monkeypatch.setenv("PGSERVICE", "other")
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.setenv("PGOPTIONS", "-c datestyle=German -c timezone=Asia/Tokyo")
    assert export_database(url, tmp_path / "bundle").complete
    sessions = read_bundle(tmp_path / "bundle").last_position_value("app", "sessions")
    assert [(sessions["timezone"], sessions["datestyle"])] == begun
    assert b"client_encoding = 'UTF8'" in (tmp_path / "bundle/data/app/schema/globals.sql").read_bytes()
