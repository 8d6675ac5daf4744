"""A host name with several addresses: all that belongs to a snapshot reaches the server that has it."""

import socket

from exporters.postgres.definitions import pg_dump
from exporters.postgres.rows import copy_feed
from exporters.postgres.sessions import snapshot_session
from tests.exporters.postgres.databases import export_database, run_sql
from tests.tools.bundles import differences, read_bundle
from tests.tools.moving_address import MovingAddress


def test_a_name_that_reaches_another_server_after_the_snapshot_was_taken_costs_nothing(
    postgres, other_postgres, tmp_path, monkeypatch
):
    """Both servers let the same role into a database of this name."""
    name = other_postgres.database().rpartition("/")[2]
    url = postgres.database(name)
    for server in (postgres, other_postgres):
        server.execute(f"CREATE ROLE {name} SUPERUSER LOGIN PASSWORD '{name}'")
    run_sql(url, "CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n; CREATE TABLE u AS TABLE t")
    resolve, describe, run, make = (
        socket.getaddrinfo,
        snapshot_session._describe,
        pg_dump._run,
        copy_feed.PsycopgFeed,
    )
    servers, feeds, environments = ["127.0.0.1"], [], []

    def resolved(host, *arguments, **options):
        return resolve(servers[-1] if host == "localhost" else host, *arguments, **options)

    def described(*arguments):
        servers.append("127.0.0.2")
        return describe(*arguments)

    def recorded(arguments, environment, *rest, **options):
        environments.append((environment["PGHOST"], environment["PGHOSTADDR"]))
        return run(arguments, environment, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    monkeypatch.setattr(snapshot_session, "_describe", described)
    monkeypatch.setattr(pg_dump, "_run", recorded)
    monkeypatch.setattr(copy_feed, "PsycopgFeed", lambda *args: feeds.append(make(*args)) or feeds[-1])
    named = url.replace("postgres@127.0.0.1", f"{name}@localhost")
    with MovingAddress(other_postgres.port, postgres.port, host="127.0.0.2"), monkeypatch.context() as patch:
        patch.setenv("PGPASSWORD", name)
        assert export_database(named, tmp_path).complete
    assert feeds
    assert {*environments} == {("localhost", "127.0.0.1")}
    assert differences(read_bundle(tmp_path), url) == []
    postgres.execute(f"DROP DATABASE {name}")
    for server in (postgres, other_postgres):
        server.execute(f"DROP ROLE {name}")
