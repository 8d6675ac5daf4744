"""While writers transfer money, servers are killed, networks cut, and the location is full or away.

``moveout follow`` runs all the time. Nothing is lost or doubled, and the cutover proves it. In half of the rounds the
log is lost by hand at the end: following stops and says what is missing, and what it says to do brings all over.
"""

import contextlib
import os
import random
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.tools.disks import grow, tiny_disk
from tests.tools.tally import count
from tests.tools.waiting import eventually
from tests.torture.command import MOVEOUT, moveout, must
from tests.torture.follow.followed_engines import ENGINES

__all__ = ["tiny_disk"]
pytestmark = [pytest.mark.torture, pytest.mark.timeout(1200)]

ROUNDS = range(int(os.environ.get("MOVEOUT_FAULT_ROUNDS", "1")))
FAULTS_A_ROUND = int(os.environ.get("MOVEOUT_FAULTS_A_ROUND", "10"))
KINDS = {
    "kill_server": "kills of servers", "cut": "network faults", "reset": "network faults", "take_away": "disk faults",
    "fill": "disk faults", "kill_follow": "kills",
}  # fmt: skip


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    return ENGINES[request.param]


@pytest.fixture(scope="module")
def pair(engine, servers):
    """Servers of our own, which are killed."""
    pair = [engine.start(servers, f"{engine.name}-{name}-killed") for name in ("old", "new")]
    yield pair
    for server in pair:
        engine.end(servers, server)


class Scene:
    """What may break: both servers and the ways to them, the location, and ``moveout follow`` itself."""

    def __init__(self, engine, pair, toxiproxy, disk, log):
        self.engine = engine
        self.servers = dict(zip(("old", "new"), pair, strict=True))
        self.urls = {name: server.database() for name, server in self.servers.items()}
        self.proxies = {name: toxiproxy.proxy(url) for name, url in self.urls.items()}
        self.disk = disk
        self._log = log
        self._begun = time.monotonic()
        self._follow: subprocess.Popen[bytes]

    @property
    def log(self):
        """What ``moveout follow`` has said, and what was broken when."""
        return self._log.read_text()

    def note(self, *words):
        with self._log.open("a") as log:
            log.write(f"--- {time.monotonic() - self._begun:.1f} s: {' '.join(map(str, words))}\n")

    def proxied(self, name):
        return self.urls[name].replace(f":{self.servers[name].port}/", f":{self.proxies[name].port}/")

    def start_follow(self):
        """Start it, and wait until it reads the log: one that begins while its location is away ends, and says so."""
        old = self.urls["old"]
        others = self.engine.log_readers(old)
        self._begin_follow()
        eventually(lambda: self.engine.log_readers(old) - others)

    def _begin_follow(self):
        words = [str(MOVEOUT), "follow", "-c", "moveout.toml"]
        with self._log.open("ab") as log:
            self._follow = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)

    def end_follow(self):
        self._follow.kill()
        self._follow.wait()

    def assert_following(self):
        assert self._follow.poll() is None, f"follow has ended\n{self.log}"

    def kill_server(self, name, _chosen):
        server = self.servers[name]
        server.child.start_again(server.accepts)

    def cut(self, name, chosen):
        self.proxies[name].cut()
        time.sleep(chosen.uniform(0.1, 3))
        self.proxies[name].mend()

    def reset(self, name, chosen):
        """Connections break after some bytes."""
        toxic = self.proxies[name].add("limit_data", bytes=chosen.randrange(1000, 300_000))
        time.sleep(chosen.uniform(1, 3))
        self.proxies[name].remove(toxic)

    def take_away(self, _name, chosen):
        home, away = self.disk / "bundle", self.disk / "away"
        home.rename(away)
        time.sleep(chosen.uniform(0.5, 3))
        # A write under way makes the directory anew, sees that, and takes back what it wrote.
        eventually(lambda: not [path for path in home.rglob("*") if path.is_file() and path.name != ".lock"])
        shutil.rmtree(home, ignore_errors=True)
        away.rename(home)

    def fill(self, _name, chosen):
        filler = self.disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(2**16))
        time.sleep(chosen.uniform(1, 3))
        filler.unlink()

    def kill_follow(self, _name, _chosen):
        self.end_follow()
        self.start_follow()

    def lose_log(self, wait_for_writers):
        """Lose what is not captured, while the server cannot be reached. Following stops, and says what is missing."""
        self.proxies["old"].cut()
        wait_for_writers()
        self.engine.lose_log(self.urls["old"])
        self.proxies["old"].mend()
        assert self._follow.wait(120) == 3, self.log
        said = " ".join(self.log.split())
        assert re.search(self.engine.lost_log, said), self.log
        assert "Take the base again" in said, self.log
        assert "moveout follow --delta" in said, self.log

    def compare_from_now_on(self):
        """Do one thing that the message says."""
        must("follow", "-c", "moveout.toml", "--delta", "--until-caught-up")
        self._begin_follow()

    def take_base_again(self):
        """Do the other thing that the message says."""
        self.urls["new"] = self.servers["new"].database()
        self.take_base("new-bundle")
        self.start_follow()

    def take_base(self, folder):
        """Export to a folder of the disk, and restore."""
        Path("moveout.toml").write_text(
            f'[case]\nname = "bank-{secrets.token_hex(4)}"\nfollow = true\n[[source]]\nname = "app"\n'
            f'url = "{self.proxied("old")}"\npassword = "env:OLD_PASSWORD"\n[bundle]\n'
            f'location = "{self.disk}/{folder}"\n[[destination]]\nsource = "app"\n'
            f'url = "{self.proxied("new")}"\npassword = "env:NEW_PASSWORD"\n'
        )
        must("export", "-c", "moveout.toml")
        must("restore", "-c", "moveout.toml")


@pytest.fixture
def scene(engine, pair, toxiproxy, tiny_disk, tmp_path, monkeypatch):
    """A bank whose database is exported, restored and followed."""
    grow(tiny_disk)
    monkeypatch.chdir(tmp_path)
    scene = Scene(engine, pair, toxiproxy, tiny_disk, tmp_path / "follow.log")
    for name, server in scene.servers.items():
        monkeypatch.setenv(f"{name.upper()}_PASSWORD", server.password)
    engine.run_sql(scene.urls["old"], engine.bank)
    scene.take_base("bundle")
    scene.note("restored")
    yield scene
    sys.stderr.write(scene.log)  # pytest shows it where the test has failed


@pytest.mark.parametrize("number", ROUNDS)
def test_nothing_is_lost_or_doubled(number, engine, scene):
    seed = os.environ.get("MOVEOUT_SEED") or str(random.SystemRandom().randrange(10**9))
    chosen = random.Random(f"{seed}/{number}")
    sys.stderr.write(f"\nMOVEOUT_SEED={seed}\n")
    old = scene.urls["old"]
    writers = engine.write(scene.servers["old"], old)
    faults = [
        (scene.kill_server, "old"), (scene.kill_server, "new"), (scene.cut, "old"), (scene.cut, "new"),
        (scene.reset, "old"), (scene.reset, "new"), (scene.take_away, ""), (scene.fill, ""),
        (scene.kill_follow, ""),
    ]  # fmt: skip
    done = Counter[str]()

    def wait_for_writers():
        before = sum(writers.acknowledged.values())
        eventually(lambda: sum(writers.acknowledged.values()) > before)

    try:
        scene.start_follow()
        for _ in range(FAULTS_A_ROUND):
            time.sleep(chosen.uniform(0.2, 2))
            fault, name = chosen.choice(faults)
            scene.note(fault.__name__, name, sum(writers.acknowledged.values()))
            fault(name, chosen)
            scene.assert_following()
            wait_for_writers()
            done[KINDS[fault.__name__]] += 1
        ((reached,),) = engine.fetch(old, "SELECT count(*) FROM log")
        scene.note("behind", reached)
        eventually(lambda: engine.fetch(scene.urls["new"], "SELECT count(*) FROM log") >= [(reached,)])
        if chosen.random() < 0.5:
            scene.note("lose_log")
            scene.lose_log(wait_for_writers)
            remedy = chosen.choice([scene.compare_from_now_on, scene.take_base_again])
            scene.note(remedy.__name__)
            remedy()
            done["lost logs"] += 1
        writers.end_coming_back()
        scene.note("cutover")
        words = ("cutover", "-c", "moveout.toml", "--hold", *engine.hold_words, "--yes")
        switched = moveout(*words)
        scene.note("switched")
        assert switched.code == 0, f"{seed}: {switched.said}\n{scene.log}"
    finally:
        writers.end()
        scene.end_follow()
        moveout("hold", "undo", "moveout-cutover.json", "--yes")
    scene.note("released")
    engine.check_transfers(old, scene.urls["new"], writers)
    for kind, number_of_faults in done.items():
        count(kind, number_of_faults)
    count("cutovers")
    must("clean", "-c", "moveout.toml", "--changes", "--yes")  # a server has ten replication slots
