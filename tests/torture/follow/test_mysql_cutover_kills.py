"""MySQL and MariaDB: writers transfer money while the move and both servers are killed at random moments."""

import os
import secrets
import subprocess
import time

import pytest

from tests.exporters.mysql.databases import fetch, run_sql
from tests.follow.move_case import write_move_case
from tests.follow.mysql_transfers import BANK, Application, check_transfers
from tests.tools.processes import killed_at_end
from tests.tools.tally import count
from tests.torture.command import MOVEOUT, moveout, must

pytestmark = pytest.mark.torture

ROUNDS = range(int(os.environ.get("MOVEOUT_CUTOVERS", "4")))
KILLS, WRITERS = 3, 16


_SETTINGS = ["binlog-format=ROW", "binlog-row-metadata=FULL", "innodb-flush-log-at-trx-commit=1"]
"""What a server has acknowledged is there after a kill."""


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def servers_of_flavour(request, servers):
    """The old and the new server, which are killed, and how the old one is held."""
    is_mariadb = request.param == "mariadb"
    start = getattr(servers, request.param)
    pair = [start(f"{request.param}-follow-{name}", settings=_SETTINGS) for name in ("old", "new")]
    yield *pair, ["--whole-server"] if is_mariadb else []
    for server in pair:
        server.child.stop()


def kill_servers(old_server, new_server, moments):
    """Kill each server while ``moveout follow`` is at work, which waits for it."""
    words = [MOVEOUT, "follow", "-c", "moveout.toml"]
    with killed_at_end(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as follow:
        for server, moment in zip((old_server, new_server, old_server), moments, strict=True):
            time.sleep(2 + moment)
            server.child.start_again(server.accepts)
        time.sleep(5)
        is_following = follow.poll() is None
        follow.kill()
        output, _ = follow.communicate()
    assert is_following, output


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", ROUNDS)
def test_nothing_is_lost_or_doubled(number, servers_of_flavour, moments, tmp_path, monkeypatch):
    old_server, new_server, words = servers_of_flavour
    old, new = old_server.database(), new_server.database()
    run_sql(old, BANK)
    monkeypatch.chdir(tmp_path)
    write_move_case(tmp_path, old, new, name=f"bank-{secrets.token_hex(4)}", follow=False, transfer=True)
    application = Application(old_server, old, writers=WRITERS, comes_back=True)
    try:
        for step, *options in (("export", "--follow"), ("transfer",), ("restore",)):
            moveout(step, "-c", "moveout.toml", *options, kill_after=moments(f"{step} {number}", 6, 1)[0])
            must(step, "-c", "moveout.toml", *options)
        for moment in moments(f"follow {number}", 8, KILLS):
            moveout("follow", "-c", "moveout.toml", kill_after=2 + moment)
        kill_servers(old_server, new_server, moments(f"servers {number}", 5, 3))
        application.end_coming_back()
        cutover = ("cutover", "-c", "moveout.toml", "--hold", *words, "--yes")
        for moment in moments(f"cutover {number}", 16, KILLS):
            moveout(*cutover, kill_after=1 + moment)
        must(*cutover)
    finally:
        application.end()
        moveout("hold", "undo", "moveout-cutover.json", "--yes")
    check_transfers(old, new, application)
    assert fetch(new, "SELECT * FROM log ORDER BY id") == fetch(old, "SELECT * FROM log ORDER BY id")
    count("cutovers")
