"""A database server that falls silent while somebody waits for it: it is named, and named again when it answers."""

import re
import threading
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise

import pytest

from exporters.connections.silent_servers import FIRST_ANSWER_SECONDS
from exporters.mysql.connection import contact as mysql_contact
from exporters.mysql.connection import parse_url as parse_mysql_url
from exporters.postgres.exporter import contact as postgres_contact
from exporters.postgres.sessions.connection import parse_url as parse_postgres_url
from migrate.case.server_url import bare_server, server_key
from migrate.errors import NotAllowedError, UnreachableError
from migrate.progress.meter import Meter
from migrate.progress.server_contact import LOOKING, WORKING, ContactedServer, ServerContact, WaitingCommand
from migrate.runtime import cancellation
from migrate.runtime.cancellation import CancellationToken
from scripts.process import free_port
from tests.tools.waiting import eventually


class Contacted:
    """A contact whose clock, server and work are the test's."""

    def __init__(self, ask=None, give_up="given up", timeouts=WORKING, retries=False):
        self.now, self.quiet, self.asked, self.notes = 0.0, 0.0, 0, []
        self.is_back = threading.Event()
        self.has_answered = True
        self.is_limited = self.is_unheard = False
        self.lost = []
        self.late, self.hung_up, self.left_out = float("inf"), [], []
        self._answer = ask or self._wait
        self.is_kept_waiting, self._is_asked_again = False, timeouts.limit_seconds is None
        self.cancellation = CancellationToken()
        server = ContactedServer(
            "postgresql://old",
            self._ask,
            has_answered=lambda: self.has_answered,
            hang_up=lambda: self.hung_up.append(self.now),
            leave_out=self._leave_out,
            is_any_unheard=lambda: self.is_unheard,
            hang_up_lost=lambda: self.lost.append(self.now),
        )
        command = WaitingCommand(
            lambda: self.quiet,
            self.notes.append,
            self.cancellation,
            timeouts,
            give_up=give_up and (lambda: self.notes.append(give_up)),
            is_too_late=lambda: self.now > self.late,
            is_limited=lambda: self.is_limited,
            retries=retries,
        )
        self.contact = ServerContact(server, command, clock=lambda: self.now)

    @contextmanager
    def _leave_out(self):
        self.left_out.append(self.now)
        yield
        self.left_out.append("no more")

    def pass_seconds(self, seconds, *, is_quiet=True):
        for _ in range(seconds):
            self.now += 1
            self.quiet = self.quiet + 1 if is_quiet else 0.0
            self.contact.look()
            eventually(lambda: self.contact._asking is None or self.is_kept_waiting)

    def end(self):
        self.is_back.set()
        for thread in threading.enumerate():
            if thread.name == "moveout-contact":
                thread.join(60)

    def ask_in_vain(self):
        self._answer = self._wait

    def _ask(self):
        self.asked += 1
        self.is_kept_waiting = False
        try:
            self._answer()
        except UnreachableError:
            self.is_kept_waiting = self._is_asked_again
            raise

    def _wait(self):
        self.is_kept_waiting = not self.is_back.is_set()
        assert self.is_back.wait(60)
        self.is_kept_waiting = False


def test_a_silent_server_is_named_after_15_s_then_once_a_minute_and_when_it_answers():
    watched = Contacted()
    watched.pass_seconds(14)
    assert (watched.asked, watched.notes) == (1, [])
    watched.pass_seconds(2)
    (line,) = watched.notes
    assert line.startswith("postgresql://old has not answered since ")
    assert "moveout waits until it does. Ctrl-C stops" in line
    watched.pass_seconds(58)
    assert len(watched.notes) == 1
    watched.pass_seconds(3)
    assert watched.notes == [line, line]
    watched.end()
    assert watched.notes[2].startswith("postgresql://old answers again, after 1")
    assert len(watched.notes) == 3


def test_while_others_move_a_server_is_asked_because_of_a_connection_on_which_nothing_comes():
    """Each answer says that the network is well; then the connection is looked at again soon."""
    watched = Contacted(ask=lambda: None)
    watched.pass_seconds(100, is_quiet=False)
    assert (watched.asked, watched.lost) == (0, [])
    watched.is_unheard = True
    for _ in range(35):
        watched.pass_seconds(1, is_quiet=False)
        watched.end()
    assert watched.asked == 4
    assert [round(later - before) for before, later in pairwise(watched.lost)] == [10] * 3, watched.lost
    assert watched.notes == []


def test_a_silent_server_is_waited_for_a_minute_while_an_application_stands_still():
    watched = Contacted()
    watched.pass_seconds(200)
    assert watched.left_out == watched.hung_up == []
    watched.end()
    watched = Contacted()
    watched.is_limited = True
    watched.pass_seconds(65)
    (line,) = watched.notes
    assert "without an answer the command ends at about" in line
    assert watched.left_out == watched.hung_up == []
    watched.pass_seconds(6)
    (left_out_at,) = watched.left_out
    assert 60 <= left_out_at <= 68
    assert watched.hung_up
    watched.end()
    assert watched.left_out[1:] == ["no more"]


def test_a_server_that_refuses_connections_is_not_said_to_be_waited_for_without_end():
    def refuse():
        raise UnreachableError("connection refused")

    contacted = Contacted(refuse)
    contacted.pass_seconds(20)
    contacted.contact.close()
    (line,) = contacted.notes
    assert "it refuses connections, and moveout tries again for a while. Ctrl-C stops" in line


def test_of_a_server_that_has_never_answered_it_is_said_when_it_is_given_up():
    watched = Contacted()
    watched.has_answered = False
    watched.pass_seconds(20)
    (line,) = watched.notes
    since, until = (
        datetime.fromisoformat(f"2026-01-01T{each}") for each in re.findall(r"\d\d:\d\d:\d\d", line)
    )
    assert (until - since).seconds == FIRST_ANSWER_SECONDS
    assert ", and never before; without an answer moveout gives up at about " in line
    watched.end()


def test_a_command_that_tries_again_by_itself_does_not_say_that_it_gives_up():
    watched = Contacted(retries=True)
    watched.has_answered = False
    watched.pass_seconds(20)
    (line,) = watched.notes
    assert "; moveout tries again until it does. Ctrl-C stops" in line
    watched.end()


def test_when_it_is_too_late_nobody_waits_for_a_silent_server_any_more():
    watched = Contacted()
    watched.late = 20.5
    watched.pass_seconds(23)
    assert watched.hung_up == [21, 22, 23]
    watched.end()
    watched.pass_seconds(5, is_quiet=False)
    assert watched.hung_up == [21, 22, 23]


def test_a_command_that_only_looks_names_a_silent_server_early_and_goes_on_without_it():
    watched = Contacted(timeouts=LOOKING)
    watched.pass_seconds(6)
    (line,) = watched.notes
    assert "; moveout goes on without it at " in line
    watched.pass_seconds(25)
    assert (watched.left_out, watched.hung_up) == ([], [])
    watched.pass_seconds(3)
    assert (watched.left_out, watched.hung_up) == ([32.0], [33.0, 34.0])
    watched.end()
    watched.pass_seconds(2)
    assert watched.left_out == [32.0, "no more"]
    assert watched.notes[1].startswith("postgresql://old answers again, after ")


def test_a_closed_port_is_an_answer_to_a_command_that_only_looks():
    def ask():
        raise UnreachableError("refused")

    watched = Contacted(ask, timeouts=LOOKING)
    watched.pass_seconds(60)
    assert watched.notes == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me@/app?host=/run/Sockets&port=5433",
        "postgresql://me@%2Frun%2FSockets/app",
        "postgresql://me@Old.example:5432/app?sslmode=require",
        "postgresql://[::1]:5432/app",
        "postgresql://a:1,b/app?hostaddr=10.0.0.1,10.0.0.2",
        "postgresql:///app?hostaddr=10.0.0.1",
        "mysql://me@localhost/app?socket=/run/mysqld.sock",
        "mysql://me@[::1]/app",
    ],
)
def test_connections_are_of_the_server_that_is_named_however_its_url_is_written(url):
    """A connection is remembered by the URL that its engine shows."""
    parse = parse_mysql_url if url.startswith("mysql") else parse_postgres_url
    assert server_key(parse(url).url) == server_key(bare_server(url))
    assert server_key(parse(parse(url).url).url) == server_key(bare_server(url))
    assert server_key(url) != server_key("postgresql://me@elsewhere/app")
    assert server_key(f"{url}{'&' if '?' in url else '?'}port=9") != server_key(url)


def test_a_server_that_is_only_busy_is_asked_less_and_less_often_and_never_named():
    watched = Contacted(lambda: None)
    watched.pass_seconds(100, is_quiet=False)
    assert watched.asked == 0
    watched.pass_seconds(600)
    assert 8 < watched.asked < 20
    assert watched.notes == []


def test_a_server_that_was_busy_for_long_is_named_as_soon_when_it_falls_silent_later():
    watched = Contacted(lambda: None)
    watched.pass_seconds(200)
    watched.pass_seconds(1, is_quiet=False)
    watched.ask_in_vain()
    watched.pass_seconds(16)
    assert len(watched.notes) == 1
    watched.end()


def test_a_refusal_is_an_answer_and_what_is_not_reached_is_asked_again():
    answers = [UnreachableError("reset"), NotAllowedError("wrong password")]

    def ask():
        raise answers.pop(0)

    watched = Contacted(ask)
    watched.pass_seconds(int(WORKING.quiet_seconds))
    watched.end()
    assert (watched.asked, watched.notes) == (2, [])


@pytest.mark.parametrize(("silent", "seconds"), [(True, 20), (True, 2), (False, 20), (False, 2)])
def test_an_interrupted_command_that_a_silent_server_holds_up_is_given_up(monkeypatch, silent, seconds):
    """Also where it is interrupted before the silence was noticed."""
    monkeypatch.setattr(cancellation, "GRACE_SECONDS", 0.0)
    watched = Contacted(None if silent else lambda: None)
    watched.pass_seconds(seconds)
    named = watched.notes.copy()
    watched.cancellation.cancel()
    watched.pass_seconds(11)
    assert watched.notes[len(named) :] == ["given up"] * silent
    watched.end()


def test_what_an_interrupted_command_that_must_not_be_killed_waits_for_is_woken(monkeypatch):
    monkeypatch.setattr(cancellation, "GRACE_SECONDS", 0.0)
    watched = Contacted(give_up=None)
    watched.cancellation.cancel()
    watched.pass_seconds(12)
    assert watched.hung_up
    watched.end()


def test_nobody_is_asked_once_the_command_has_ended():
    watched = Contacted()
    watched.contact.close()
    watched.pass_seconds(30)
    assert (watched.asked, watched.notes) == (0, [])


def test_only_work_moves_a_meter():
    now = [0.0]
    meter = Meter(clock=lambda: now[0])
    steps = [
        lambda: meter.begin("export app", items=2, size_bytes=0),
        lambda: meter.grow(items=1),
        lambda: meter.skip(items=1),
        lambda: meter.advance(items=1),
        meter.end,
    ]
    for step in steps:
        now[0] += 10.0
        step()
        assert meter.quiet_seconds() == 0.0
    now[0] += 10.0
    meter.note("something else")
    assert meter.quiet_seconds() == 10.0


@pytest.mark.parametrize(("scheme", "contact"), [("postgresql", postgres_contact), ("mysql", mysql_contact)])
def test_a_server_answers_where_it_refuses_the_login_and_not_at_a_closed_port(scheme, contact, request):
    server = request.getfixturevalue({"postgresql": "postgres", "mysql": "mariadb"}[scheme])
    contact(f"{scheme}://nobody@127.0.0.1:{server.port}/none", {"password": "wrong"})
    with pytest.raises(UnreachableError):
        contact(f"{scheme}://nobody@127.0.0.1:{free_port()}/none", {"password": "wrong"})
