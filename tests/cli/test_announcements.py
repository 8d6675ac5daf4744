"""Who else hears of a command: readers of the status page, a program and a URL of the user's own."""

import base64
import html
import json
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

import pytest

from migrate.bundle.export_ledger import Totals
from migrate.cli import status as status_command
from migrate.cli.progress import status_server
from migrate.cli.progress.notifier import is_late
from migrate.cli.progress.status_page_file import shown_state
from migrate.cli.progress.status_view import LocationStatus, Status, page_of
from migrate.errors import INTERRUPTED
from migrate.export.status import ExportStatus, SourceStatus
from migrate.progress.state import ProgressState, TaskProgress
from migrate.report.status_page import status_page
from tests.cli.conftest import MOVEOUT, call
from tests.cli.test_status import make_large_file
from tests.tools.clients import boto_client
from tests.tools.terminal import Terminal


class Listener(HTTPServer):
    """A server that keeps what is posted to it."""

    def __init__(self):
        self.events = events = []
        self.is_broken = False
        self.credentials = credentials = []

        class Keep(BaseHTTPRequestHandler):
            def do_POST(self):
                credentials.append(self.headers["Authorization"])
                events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                if self.server.is_broken:
                    self.wfile.write(b"HELLO\r\n\r\n")
                    return
                self.send_response(204)
                self.end_headers()

            def log_message(self, *words):
                pass

        super().__init__(("127.0.0.1", 0), Keep)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture
def listener():
    server = Listener()
    yield server
    server.shutdown()
    server.server_close()


def write_case(directory, notify):
    with closing(sqlite3.connect(directory / "app.db")) as connection, connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS id, 'x' AS body")
    case = directory / "moveout.toml"
    case.write_text(
        f"""
[case]
name = "acme"
deadline = 2099-01-01T00:00:00Z
notify = {notify}
[[source]]
name = "app"
url = "sqlite:///{directory}/app.db"
[bundle]
location = "bundle"
[[destination]]
source = "app"
url = "sqlite:///{directory}/new.db"
""",
        encoding="utf-8",
    )
    return case


def test_a_run_tells_a_program_and_a_url_and_writes_its_page(tmp_path, listener):
    program = tmp_path / "tell.sh"
    program.write_text(f"#!/bin/sh\ncat >> {tmp_path}/events; echo >> {tmp_path}/events\n", encoding="utf-8")
    program.chmod(0o755)
    case = write_case(tmp_path, f'{{ command = "{program}", url = "{listener.url}" }}')
    ended = call("run", "-c", case, "--status-page", tmp_path / "pages.html", "--json")
    assert ended.code == 0, ended.err
    announced = [json.loads(line) for line in (tmp_path / "events").read_text(encoding="utf-8").splitlines()]
    assert announced == listener.events
    stages = [event["stage"] for event in announced if event["event"] == "stage_ended"]
    assert stages[-4:] == ["plan", "export", "verify", "restore"]
    last = announced[-1]
    assert (last["event"], last["exit_code"], last["case"], last["gaps"]) == ("ended", 0, "acme", 0)
    page = (tmp_path / "pages.html").read_text(encoding="utf-8")
    assert "acme: run" in page
    assert "Done, complete" in page
    assert 'http-equiv="refresh"' not in page  # nothing more will come
    assert "2099-01-01 00:00:00 UTC" in page
    assert call("run", "-c", case, "--status-page", tmp_path / "pages.html").code == 0
    page = (tmp_path / "pages.html").read_text(encoding="utf-8")
    assert ("100 %" in page, "not needed" in page, "waiting" in page) == (True, True, False)
    assert "<script" not in page


def test_what_is_missing_is_told_and_stands_on_the_page(tmp_path, listener):
    case = write_case(tmp_path, f'{{ url = "{listener.url}" }}')
    text = case.read_text(encoding="utf-8")
    text += f'[[source]]\nname = "gone"\nurl = "sqlite:///{tmp_path}/gone.db"\n'
    (tmp_path / "torn.db").write_bytes(b"SQLite format 3\0" + bytes(range(200)) * 9)
    text += f'[[source]]\nname = "torn"\nurl = "sqlite:///{tmp_path}/torn.db"\n'
    case.write_text(text, encoding="utf-8")
    page = tmp_path / "page.html"
    ended = call("export", "-c", case, "--status-page", page)
    assert ended.code == 3, ended.err
    assert [event["event"] for event in listener.events] == ["gaps", "ended"]
    assert listener.events[-1]["gaps"] == 2  # the one of a source that was opened counts, too
    assert listener.events[-1]["exit_code"] == 3
    text = html.unescape(page.read_text(encoding="utf-8"))
    assert "Done, with gaps" in text
    for line in filter(None, ended.out.splitlines()):
        assert line.strip() in text
    state = ("status", "-c", case, "--json")
    status = call(*state).json["result"]["locations"][0]["export"]["sources"]
    assert {source["name"]: source["gaps_total"] for source in status} == {"app": 0, "gone": 1, "torn": 1}


def test_the_page_of_many_sources_shows_those_first_that_are_not_done():
    tasks = [TaskProgress(f"export {number:02}", f"{number:02}", "done") for number in range(20)]
    tasks[15] = TaskProgress("export late", "late", "running", total_items=2)
    state = ProgressState(command="export", tasks=tasks)
    page = status_page("export", [shown_state(state, alive=True)]).decode()
    assert page.index("export late") < page.index("export 00")
    assert page.count("export 00") == 1  # a row, and no bar
    assert page.count("export late") == 2
    one = Totals(1, 1, 1)
    sources = [
        SourceStatus(name, "", one, whole=True, done=one, exact=True, finished=True, gaps=(), gaps_total=gaps)
        for name, gaps in (("whole", 0), ("lacking", 2))
    ]
    exported = ExportStatus("here", "incomplete", "id", "", sources)
    page = page_of(Status([LocationStatus("here", export=exported)]), "").decode()
    assert page.index("lacking: 1 item, 1 B, 2 gaps") < page.index("whole: 1 item, 1 B<")
    assert "run the same export again" in page


def test_the_page_of_a_command_that_failed_says_what_to_do(tmp_path):
    page = tmp_path / "page.html"
    assert call("export", "gone.db", "--to", "bundle", "--status-page", page, cwd=tmp_path).code == 7
    text = page.read_text(encoding="utf-8")
    assert "Ended with exit code 7" in text
    assert "gone.db → check the path" in text


def test_a_url_with_a_user_and_a_password_is_told_and_shown_without_it(tmp_path, listener):
    url = listener.url.replace("http://", "http://me:p%40ss%2Fword@")
    case = write_case(tmp_path, f'{{ url = "{url}" }}')
    log = tmp_path / "log"
    words = [MOVEOUT, "export", "-c", case, "-v", "--log-file", log]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert listener.credentials == ["Basic " + base64.b64encode(b"me:p@ss/word").decode()]
    assert listener.events[-1]["event"] == "ended"
    case.write_text(case.read_text(encoding="utf-8").replace("http://", "ftp://"), encoding="utf-8")
    refused = call("export", "-c", case)
    assert (refused.code, "ftp://me:…@127.0.0.1" in refused.err) == (2, True)
    texts = ended.stdout + ended.stderr + log.read_text(encoding="utf-8") + refused.err
    assert not any(secret in texts for secret in ("p%40ss", "p@ss"))


def test_a_page_in_a_bucket_is_shown_by_browsers(tmp_path, minio, bucket):
    source = make_large_file(tmp_path / "app.db")
    page = f"s3://{bucket}/pages?profile={minio.profile}"
    assert call("export", source, "--to", tmp_path / "bundle", "--status-page", page).code == 0
    answer = boto_client(minio.profile).get_object(Bucket=bucket, Key="pages/status.html")
    assert answer["ContentType"].startswith("text/html")
    assert b"Done, complete" in answer["Body"].read()


def test_a_notification_or_a_page_that_fails_is_a_note(tmp_path):
    case = write_case(
        tmp_path, '{ command = "/bin/sh -c \'echo no room >&2; exit 7\'", url = "http://127.0.0.1:9/" }'
    )
    (tmp_path / "pages").mkdir()
    ended = call("export", "-c", case, "--status-page", tmp_path / "pages")
    assert ended.code == 0
    assert "failed: exit code 7: no room" in ended.err
    assert "failed: Connection refused" in ended.err.replace("[Errno 111] ", "")
    assert (tmp_path / "pages" / "status.html").exists()
    assert (
        "there is no directory" in call("export", "-c", case, "--status-page", tmp_path / "no" / "x.html").err
    )


def test_an_answer_that_is_no_http_costs_no_later_notification(tmp_path, listener):
    listener.is_broken = True
    ended = call("run", "-c", write_case(tmp_path, f'{{ url = "{listener.url}" }}'))
    assert (ended.code, "Traceback" in ended.err) == (0, False), ended.err
    assert listener.events[-1]["event"] == "ended"
    assert "the notification of stage_ended failed: HELLO" in ended.err


@pytest.mark.parametrize(
    ("notify", "words"),
    [
        ('"mail"', "notify must be"),
        ('{ mail = "me" }', "has no 'mail'"),
        ('{ url = "file:///etc/passwd" }', "must begin with http"),
        ('{ command = "say \'" }', "No closing quotation"),
        ('{ url = "http://me:secret/word@127.0.0.1/" }', "names no host, or has spaces in it"),
        ('{ url = "http://127.0.0.1/?token=se cret" }', "names no host, or has spaces in it"),
        ('{ url = "http://[secret" }', "names no host, or has spaces in it"),
    ],
)
def test_a_notification_that_cannot_be_is_refused_at_once(tmp_path, notify, words):
    case = write_case(tmp_path, notify)
    ended = call("export", "-c", case)
    assert ended.code == 2
    assert words in ended.err
    assert "secret" not in ended.err


def test_a_forecast_after_the_deadline_is_late():
    now = datetime.now(UTC)
    soon, later = ((now + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ") for hours in (1, 2))
    assert is_late(ProgressState(command="run", deadline=soon, ready=("left", soon, later)))
    assert not is_late(ProgressState(command="run", deadline=later, ready=("left", soon, soon)))
    assert not is_late(ProgressState(command="run", deadline=soon, ready=("up", soon, later)))
    assert is_late(ProgressState(command="export", deadline=soon, seconds_left=7200.0))
    assert not is_late(ProgressState(command="export", deadline=soon))


def test_the_status_is_served_to_this_machine_alone(tmp_path):
    location = tmp_path / "bundle"
    names = [f"the-database-of-customer-{number:02}" for number in range(12)]
    for name in names:
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    sources = [f"{name}=sqlite://{tmp_path}/{name}" for name in names]
    assert call("export", *sources, "--to", location).code == 0
    server = subprocess.Popen(
        [MOVEOUT, "status", location, "--serve", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True
    )
    try:
        url = re.search(r"http://\S+/", server.stderr.readline())[0]
        with urllib.request.urlopen(url) as answer:
            page = answer.read().decode()
        assert "A sealed bundle, complete" in page
        assert [name for name in names if f"{name}: " not in page] == []
        assert 'http-equiv="refresh" content="30"' in page
        with urllib.request.urlopen(f"{url}status.json") as answer:
            assert json.load(answer)["locations"][0]["export"]["state"] == "complete"
        for request, code in (
            (urllib.request.Request(url, headers={"Host": "elsewhere.example"}), 403),
            (urllib.request.Request(f"{url}../../etc/passwd"), 404),
            (urllib.request.Request(url, b"x"), 501),
        ):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request)
            assert caught.value.code == code
            caught.value.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=120)
    assert call("status", location, "--serve", "nowhere").code == 2


def test_a_watch_ends_with_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(status_command, "LINE_SECONDS", 0.5)
    monkeypatch.setattr(status_command, "_ENDED_SECONDS", 1.0)
    source, location = make_large_file(tmp_path / "app.db"), tmp_path / "bundle"
    export = subprocess.Popen(
        [MOVEOUT, "export", source, "--to", location, "--bwlimit", "2M"], stderr=subprocess.DEVNULL
    )
    began = time.monotonic()
    ended = call("status", location, "--watch")
    assert export.wait(timeout=60) == 0
    assert time.monotonic() - began < 120
    assert re.search(r"\d\dZ  export app +\d+%", ended.out)
    assert "a sealed bundle, complete" in ended.out
    assert "leave one of them out" in call("status", location, "--watch", "--json").err
    shown = Terminal("status", location, "--watch", shows_answer=True)
    shown.wait_for("a sealed bundle, complete")
    shown.wait_for("Nothing is at work there now. Ctrl-C ends the watch.")
    shown.process.send_signal(signal.SIGINT)
    assert (shown.end(), "Traceback" in shown.text) == (INTERRUPTED, False), shown.text


def test_a_reader_that_asks_nothing_is_sent_away(monkeypatch):
    monkeypatch.setattr(status_server, "_READER_SECONDS", 0.2)
    server = status_server.StatusServer(("127.0.0.1", 0), lambda: (b"page", {}))
    threading.Thread(target=server.serve, daemon=True).start()
    with socket.create_connection(("127.0.0.1", urlsplit(server.url).port), timeout=60) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\n")
        assert slow.recv(1) == b""
    with urllib.request.urlopen(server.url) as answer:
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    server._server.shutdown()
