"""MySQL and MariaDB: writers transfer money while the move, and once the old server, is killed at random moments."""

import os
import secrets

import pytest

from tests.exporters.mysql.databases import fetch, run_sql
from tests.follow.mysql_transfers import BANK, Application, check_transfers
from tests.torture.command import moveout, must

pytestmark = pytest.mark.torture

ROUNDS = range(int(os.environ.get("MOVEOUT_CUTOVERS", "4")))
KILLS = 3


@pytest.fixture(params=["mariadb", "mysql"])
def servers_of_flavour(request):
    """The old and the new server, and how the old one is held."""
    is_mariadb = request.param == "mariadb"
    names = ("followed_mariadb", "other_mariadb") if is_mariadb else ("mysql", "other_mysql")
    return *map(request.getfixturevalue, names), ["--whole-server"] if is_mariadb else []


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", ROUNDS)
def test_nothing_is_lost_or_doubled(number, servers_of_flavour, moments, tmp_path, monkeypatch):
    old_server, new_server, words = servers_of_flavour
    old, new = old_server.database(), new_server.database()
    run_sql(old, f"SET GLOBAL binlog_row_metadata = 'FULL'; {BANK}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "moveout.toml").write_text(
        f'[case]\nname = "bank-{secrets.token_hex(4)}"\n[[source]]\nname = "app"\nurl = "{old}"\n'
        f'[bundle]\nlocation = "bundle"\n[[destination]]\nsource = "app"\nurl = "{new}"\n'
    )
    application = Application(old_server, old)
    try:
        moveout("export", "-c", "moveout.toml", "--follow", kill_after=moments(f"export {number}", 6, 1)[0])
        must("export", "-c", "moveout.toml", "--follow")
        moveout("restore", "-c", "moveout.toml", kill_after=moments(f"restore {number}", 6, 1)[0])
        must("restore", "-c", "moveout.toml")
        for moment in moments(f"follow {number}", 8, KILLS):
            moveout("follow", "-c", "moveout.toml", kill_after=2 + moment)
        cutover = ("cutover", "-c", "moveout.toml", "--hold", *words, "--yes")
        for moment in moments(f"cutover {number}", 8, KILLS):
            moveout(*cutover, kill_after=1 + moment)
        must(*cutover)
    finally:
        application.end()
        moveout("hold", "undo", "moveout-cutover.json", "--yes")
    check_transfers(old, new, application)
    assert fetch(new, "SELECT * FROM log ORDER BY id") == fetch(old, "SELECT * FROM log ORDER BY id")
