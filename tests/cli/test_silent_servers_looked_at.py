"""Commands that only look: a server that is silent is named, left out after a while, and never in the way of Ctrl-C."""

import os
import signal
import socket
import subprocess
import time

import pytest

from exporters.mysql import connection as mysql
from migrate.cli import plan
from migrate.errors import INTERRUPTED, IncompleteError, UnreachableError
from migrate.progress import server_contact
from migrate.progress.server_contact import ContactTimeouts
from migrate.storage import outage
from tests.cli.conftest import MOVEOUT, call, make_file
from tests.tools.processes import killed_at_end, stopped

NAMED = " has not answered since "


@pytest.fixture
def silent(mariadb):
    """The URL of a database whose server is stopped."""
    url = mariadb.database()
    with stopped(mariadb):
        yield url


@pytest.fixture
def impatient(monkeypatch):
    """Commands that wait for seconds where they would wait for half a minute. A login would wait for longer."""
    monkeypatch.setattr(server_contact, "LOOKING", ContactTimeouts(0.5, 0.5, 1.0, 0.0, limit_seconds=2.0))
    monkeypatch.setattr(mysql, "GREETING_SECONDS", 60)


def case_of(folder, source):
    """Write a case of two sources, whose destinations have the servers of the other one."""
    make_file(folder / "a.db")
    case = folder / "moveout.toml"
    case.write_text(
        f'[bundle]\nlocation = "{folder}/bundle"\n'
        f'[[source]]\nname = "app"\nurl = "{source}"\n[[source]]\nname = "file"\nurl = "sqlite://{folder}/a.db"\n'
        f'[[destination]]\nsource = "file"\nurl = "sqlite://{folder}/b.db"\n'
        f'[[destination]]\nsource = "app"\nurl = "{source}_new"\n'
    )
    return case


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("command", ["plan", "doctor", "discover"])
def test_a_silent_server_is_named_and_left_out_and_the_others_are_looked_at(silent, tmp_path, command):
    case, began = case_of(tmp_path, silent), time.monotonic()
    words = ["discover", silent, f"{tmp_path}/a.db"] if command == "discover" else [command, "-c", case]
    ended = call(*words)
    assert time.monotonic() - began < 60
    assert ended.code == (UnreachableError if command == "doctor" else IncompleteError).exit_code, ended.err
    assert ended.err.count(f"{silent.rpartition('/')[0]}{NAMED}") == 1, ended.err
    assert "the server has not answered for" in " ".join(ended.out.split())
    assert "SQLite" in ended.out or f"{tmp_path}/a.db" in ended.out


@pytest.mark.usefixtures("impatient")
def test_clean_says_whose_restores_are_not_known(mariadb, tmp_path):
    url = mariadb.database()
    case = case_of(tmp_path, url)
    assert call("export", "-c", case, "--allow-empty").code == 0
    with stopped(mariadb):
        ended = call("clean", "-c", case, "--yes")
    assert f"{url.rpartition('/')[0]}{NAMED}" in ended.err
    assert (
        f"app: whether a restore has not ended is not known: {url}_new: the server has not answered"
        in ended.err
    )


@pytest.mark.usefixtures("impatient")
def test_a_server_that_falls_silent_while_it_is_surveyed_is_left_out(mariadb, tmp_path, monkeypatch):
    """A driver waits for the answer to a statement without end."""
    case = case_of(tmp_path, mariadb.database())
    survey = plan._survey

    with stopped(mariadb):
        os.kill(mariadb.child.popen.pid, signal.SIGCONT)

        def survey_of_stopped(*words):
            os.kill(mariadb.child.popen.pid, signal.SIGSTOP)
            return survey(*words)

        monkeypatch.setattr(plan, "_survey", survey_of_stopped)
        ended = call("plan", "-c", case, "--json")
    assert ended.code == IncompleteError.exit_code, ended.err
    (unread,) = ended.json["result"]["unread"]
    assert (unread["source"], unread["code"]) == ("app", "unreachable")
    assert "the server has not answered for" in unread["message"]


def test_ctrl_c_ends_a_command_at_once_whose_threads_wait_for_silent_servers(silent):
    command = [MOVEOUT, "discover", silent]
    with killed_at_end(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        lines = iter(process.stdout.readline, "")
        assert any(NAMED in line for line in lines)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=15) == INTERRUPTED


@pytest.fixture
def mute(tmp_path, monkeypatch):
    """The environment of a profile whose endpoint takes connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:  # the system takes connections for it
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "config").write_text(f"[profile mute]\nregion = us-east-1\nendpoint_url = {endpoint}\n")
        (tmp_path / "keys").write_text("[mute]\naws_access_key_id = a\naws_secret_access_key = b\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
        yield


@pytest.mark.usefixtures("impatient", "mute")
@pytest.mark.parametrize(
    "command",
    [
        "plan",
        "status",
        *(pytest.param(command, marks=pytest.mark.torture) for command in ("doctor", "discover")),
    ],
)
def test_a_silent_account_of_buckets_is_named_and_left_out_once(tmp_path, monkeypatch, command):
    """Each request to it took a minute, and was sent again."""
    monkeypatch.setattr(outage, "FIRST_ANSWER_SECONDS", 3.0)
    make_file(tmp_path / "a.db")
    case, began = tmp_path / "moveout.toml", time.monotonic()
    location = "s3://bundles/b?profile=mute" if command == "status" else f"{tmp_path}/bundle"
    case.write_text(
        f'[bundle]\nlocation = "{location}"\n'
        + "".join(
            f'[[source]]\nname = "{name}"\nurl = "s3://{name}?profile=mute"\n' for name in ("media", "more")
        )
        + f'[[source]]\nname = "file"\nurl = "sqlite://{tmp_path}/a.db"\n'
    )
    words = ["s3://?profile=mute", f"{tmp_path}/a.db"] if command == "discover" else ["-c", case]
    ended = call(command, *words)
    assert time.monotonic() - began < 60
    is_blocked = command in {"doctor", "status"}
    assert ended.code == (UnreachableError if is_blocked else IncompleteError).exit_code, ended.err
    assert ended.err.count(f"s3://?profile=mute{NAMED}") == 1, ended.err
    assert "the server has not answered for" in " ".join((ended.out + ended.err).split())
    assert command == "status" or "SQLite" in ended.out or f"{tmp_path}/a.db" in ended.out


@pytest.mark.torture
@pytest.mark.usefixtures("mute")
def test_a_silent_account_of_buckets_is_not_in_the_way_of_ctrl_c():
    command, pipe = [MOVEOUT, "discover", "s3://?profile=mute"], subprocess.PIPE
    with killed_at_end(command, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
        lines = iter(process.stdout.readline, "")
        assert any(f"s3://?profile=mute{NAMED}" in line for line in lines)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=15) == INTERRUPTED
