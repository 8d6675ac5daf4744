"""PostgreSQL: while writers transfer money, servers are killed, networks cut, and the location is full or away.

``moveout follow`` runs all the time. Nothing is lost or doubled, and the cutover proves it.
"""

import contextlib
import os
import random
import secrets
import shutil
import subprocess
import sys
import time
from collections import Counter

import psycopg
import pytest

from tests.exporters.postgres.databases import fetch, run_sql
from tests.tools.disks import grow, tiny_disk
from tests.tools.tally import count
from tests.tools.waiting import eventually
from tests.torture.command import MOVEOUT, moveout, must
from tests.torture.follow.test_cutover_kills import BANK, Writers, check_transfers

__all__ = ["tiny_disk"]
pytestmark = [pytest.mark.torture, pytest.mark.timeout(1200)]

ROUNDS = range(int(os.environ.get("MOVEOUT_FAULT_ROUNDS", "1")))
FAULTS_A_ROUND = int(os.environ.get("MOVEOUT_FAULTS_A_ROUND", "10"))
KINDS = {
    "kill_server": "kills of servers", "cut": "network faults", "reset": "network faults", "take_away": "disk faults",
    "fill": "disk faults", "kill_follow": "kills",
}  # fmt: skip


@pytest.fixture(scope="module")
def pair(servers):
    """Servers of our own, which are killed."""
    pair = [servers.postgres(name, settings=["wal_level=logical"]) for name in ("old-killed", "new-killed")]
    yield pair
    for server in pair:
        servers.end(server)


class Scene:
    """What may break: both servers and the ways to them, the location, and ``moveout follow`` itself."""

    def __init__(self, pair, toxiproxy, disk, follow_log):
        self.servers = dict(zip(("old", "new"), pair, strict=True))
        self.urls = {name: server.database() for name, server in self.servers.items()}
        self.proxies = {name: toxiproxy.proxy(url) for name, url in self.urls.items()}
        self.disk = disk
        self._log = follow_log
        self._follow: subprocess.Popen[bytes]

    def proxied(self, name):
        return self.urls[name].replace(f":{self.servers[name].port}/", f":{self.proxies[name].port}/")

    def start_follow(self):
        words = [str(MOVEOUT), "follow", "-c", "moveout.toml"]
        self._follow = subprocess.Popen(words, stdout=self._log, stderr=subprocess.STDOUT)

    def end_follow(self):
        self._follow.kill()
        self._follow.wait()

    def assert_following(self):
        assert self._follow.poll() is None, "follow has ended"

    def kill_server(self, name, _chosen):
        server = self.servers[name]
        server.child.start_again(server.accepts)

    def cut(self, name, chosen):
        self.proxies[name].cut()
        time.sleep(chosen.uniform(0.1, 5))
        self.proxies[name].mend()

    def reset(self, name, chosen):
        """Connections break after some bytes."""
        toxic = self.proxies[name].add("limit_data", bytes=chosen.randrange(1000, 300_000))
        time.sleep(chosen.uniform(1, 5))
        self.proxies[name].remove(toxic)

    def take_away(self, _name, chosen):
        home, away = self.disk / "bundle", self.disk / "away"
        home.rename(away)
        time.sleep(chosen.uniform(0.5, 5))
        # A write under way makes the directory anew, sees that, and takes back what it wrote.
        eventually(lambda: not [path for path in home.rglob("*") if path.is_file() and path.name != ".lock"])
        shutil.rmtree(home, ignore_errors=True)
        away.rename(home)

    def fill(self, _name, chosen):
        filler = self.disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(2**16))
        time.sleep(chosen.uniform(1, 5))
        filler.unlink()

    def kill_follow(self, _name, _chosen):
        self.end_follow()
        self.start_follow()
        self.wait_for_follow()

    def wait_for_follow(self):
        """Wait until it reads the log: one that begins while its location is away ends, and says so."""
        reading = "SELECT 1 FROM pg_replication_slots WHERE active AND database = current_database()"
        eventually(lambda: fetch(self.urls["old"], reading))


@pytest.mark.parametrize("number", ROUNDS)
def test_nothing_is_lost_or_doubled(number, pair, toxiproxy, tiny_disk, tmp_path, monkeypatch):
    seed = os.environ.get("MOVEOUT_SEED") or str(random.SystemRandom().randrange(10**9))
    chosen = random.Random(f"{seed}/{number}")
    sys.stderr.write(f"\nMOVEOUT_SEED={seed}\n")
    grow(tiny_disk)
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "follow.log").open("w") as log:
        scene = Scene(pair, toxiproxy, tiny_disk, log)
        old, new = scene.urls["old"], scene.urls["new"]
        for name, server in scene.servers.items():
            monkeypatch.setenv(f"{name.upper()}_PASSWORD", server.password)
        run_sql(old, BANK)
        (tmp_path / "moveout.toml").write_text(
            f'[case]\nname = "bank-{secrets.token_hex(4)}"\nfollow = true\n[[source]]\nname = "app"\n'
            f'url = "{scene.proxied("old")}"\npassword = "env:OLD_PASSWORD"\n[bundle]\n'
            f'location = "{tiny_disk}/bundle"\n[[destination]]\nsource = "app"\nurl = "{scene.proxied("new")}"\n'
            f'password = "env:NEW_PASSWORD"\n'
        )
        must("export", "-c", "moveout.toml")
        must("restore", "-c", "moveout.toml")
        writers = Writers(old, comes_back=True)
        scene.start_follow()
        scene.wait_for_follow()
        faults = [
            (scene.kill_server, "old"), (scene.kill_server, "new"), (scene.cut, "old"), (scene.cut, "new"),
            (scene.reset, "old"), (scene.reset, "new"), (scene.take_away, ""), (scene.fill, ""),
            (scene.kill_follow, ""),
        ]  # fmt: skip
        done = Counter[str]()
        try:
            for _ in range(FAULTS_A_ROUND):
                time.sleep(chosen.uniform(0.5, 3))
                fault, name = chosen.choice(faults)
                log.write(f"--- {fault.__name__} {name} {sum(writers.acknowledged.values())}\n")
                log.flush()
                before = sum(writers.acknowledged.values())
                fault(name, chosen)
                scene.assert_following()
                eventually(lambda before=before: sum(writers.acknowledged.values()) > before)
                done[KINDS[fault.__name__]] += 1
            behind = "SELECT count(*) FROM log"
            (reached,) = fetch(old, behind)
            eventually(lambda: fetch(new, behind) >= [reached])
            writers.end_coming_back()
            switched = moveout("cutover", "-c", "moveout.toml", "--hold", "--yes")
            assert switched.code == 0, f"{seed}: {switched.said}\n{(tmp_path / 'follow.log').read_text()}"
        finally:
            writers.end()
            scene.end_follow()
            with contextlib.suppress(psycopg.Error):
                moveout("hold", "undo", "moveout-cutover.json", "--yes")
    check_transfers(old, new, writers)
    for kind, number_of_faults in done.items():
        count(kind, number_of_faults)
    count("cutovers")
