"""New connections to a silent server: waited for where it has answered before, and somebody waits."""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress

import pytest

from exporters.connections import silent_servers
from exporters.connections.open_connections import hang_up
from exporters.connections.silent_servers import connected, has_answered, waiting_for_silent
from exporters.errors import SourceNoRouteError, SourceSilentError, SourceUnreachableError
from exporters.mysql import connection as mysql
from exporters.postgres.sessions import connection as postgres
from migrate.runtime.cancellation import CancellationToken
from tests.tools.processes import stopped
from tests.tools.waiting import eventually


@contextmanager
def shut(server, *, loses_packets):
    """Stop a server's main process, so that it lets nobody in: the system takes connections, and nothing answers. Where
    packets get lost, no connection is made: so its queue of them is full. Yield what lets it go on.
    """
    with ExitStack() as queue:
        queue.enter_context(stopped(server))
        with suppress(TimeoutError):
            while loses_packets:
                queue.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=0.2))
        yield queue.close


@pytest.mark.parametrize(
    ("kind", "loses_packets"), [("postgres", False), ("mariadb", False), ("mariadb", True)]
)
def test_a_new_connection_waits_for_a_server_that_answers_no_more(request, kind, loses_packets, monkeypatch):
    server, pauses = request.getfixturevalue(kind), []
    url = server.database()
    engine = mysql if url.startswith("mysql") else postgres
    address = engine.parse_url(url)
    engine.connect(address).close()
    monkeypatch.setattr(postgres, "CONNECT_SECONDS", 2)
    monkeypatch.setattr(mysql, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(mysql, "GREETING_SECONDS", 0.5)
    with shut(server, loses_packets=loses_packets) as let_go_on:

        def wait(seconds):
            pauses.append(seconds)
            let_go_on()
            return False

        with waiting_for_silent(wait):
            connection = engine.connect(address)
    assert pauses
    if engine is mysql:
        assert connection.value("SELECT SLEEP(0.8)") == 0  # a statement may take longer than a greeting
    connection.close()


def test_a_server_has_answered_where_any_of_its_databases_has(monkeypatch):
    monkeypatch.setattr(silent_servers, "_answered", {})
    monkeypatch.setattr(silent_servers, "_silent", {})
    answers = [None, SourceSilentError("timeout"), None]

    def connect():
        if (answer := answers.pop(0)) is not None:
            raise answer

    assert not has_answered(lambda _: True)
    with waiting_for_silent(lambda _: False):
        connected("mysql://me@old/app", connect)
        assert has_answered(lambda url: url == "mysql://me@old/app")
        connected("mysql://you@old/other", connect)
        with pytest.raises(SourceSilentError):
            connected("mysql://me@new/app", connect_in_vain)


def connect_in_vain():
    raise SourceSilentError("timeout", about="postgresql://me@old/app")


def test_the_other_databases_of_a_server_that_has_never_answered_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(silent_servers, "_answered", {})
    monkeypatch.setattr(silent_servers, "_silent", {})
    with pytest.raises(SourceSilentError, match="timeout"):
        connected("postgresql://me@old/app", connect_in_vain)
    with pytest.raises(SourceSilentError, match="postgresql://me@old/shop: timeout"):
        connected("postgresql://me@old/shop", lambda: None)
    connected("postgresql://me@new/shop", lambda: None)
    monkeypatch.setattr(silent_servers, "FIRST_ANSWER_SECONDS", 0)
    connected("postgresql://me@old/shop", lambda: None)


@pytest.mark.parametrize("engine", [mysql, postgres])
def test_where_no_way_leads_to_a_server_the_next_connection_is_tried(monkeypatch, engine):
    """Nobody was waited for. The system itself refuses a connection to an address of many."""
    monkeypatch.setattr(silent_servers, "_answered", {})
    monkeypatch.setattr(silent_servers, "_silent", {})
    scheme = "mysql" if engine is mysql else "postgresql"
    address = engine.parse_url(f"{scheme}://me@224.0.0.1:1/app")
    with pytest.raises(SourceNoRouteError, match=r"(?i)network is unreachable"):
        engine.connect(address)
    connected(address.url, lambda: None)


@pytest.mark.parametrize("case", ["never answered", "nobody waits", "cancelled"])
def test_a_silent_server_is_an_error(monkeypatch, case):
    monkeypatch.setattr(silent_servers, "_answered", {})
    monkeypatch.setattr(silent_servers, "_silent", {})
    token, attempts = CancellationToken(), []

    def connect_in_vain():
        attempts.append(1)
        raise SourceSilentError("postgresql://old/app: connection timeout expired")

    if case != "never answered":
        connected("postgresql://me@old/another", lambda: None)
    if case == "cancelled":
        token.cancel()
    waiting = nullcontext() if case == "nobody waits" else waiting_for_silent(token.wait)
    with waiting, pytest.raises(SourceSilentError):
        connected("postgresql://old/app", connect_in_vain)
    assert len(attempts) == 1


@pytest.mark.parametrize(("kind", "engine"), [("mariadb", mysql), ("postgres", postgres)])
def test_a_login_that_a_silent_server_does_not_answer_is_ended_from_outside(request, kind, engine):
    server = request.getfixturevalue(kind)
    address = engine.parse_url(server.database())
    with shut(server, loses_packets=False), ThreadPoolExecutor() as threads:
        waiting = threads.submit(engine.connect, address)
        eventually(lambda: waiting.done() or hang_up(lambda url: url == address.url))
        assert isinstance(waiting.exception(0), SourceUnreachableError)
