"""While writers transfer money, servers are killed, networks cut, and the location is full or away.

``moveout follow`` runs all the time. Nothing is lost or doubled, and the cutover proves it. Where a fault
ends that, the old side is in use as before, and the same command goes on. In half of the rounds the log is lost by hand
before: following stops and says what is missing, and what it says to do brings all over.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from migrate.errors import GoneError, NoSpaceError, UnreachableError
from tests.tools.disks import grow, tiny_disk
from tests.tools.tally import count
from tests.tools.waiting import eventually
from tests.torture.command import MOVEOUT, moveout, must
from tests.torture.follow.followed_engines import ENGINES

__all__ = ["tiny_disk"]
pytestmark = [pytest.mark.torture, pytest.mark.timeout(1200)]

ROUNDS = range(int(os.environ.get("MOVEOUT_FAULT_ROUNDS", "1")))
FAULTS_A_ROUND = int(os.environ.get("MOVEOUT_FAULTS_A_ROUND", "10"))
PASSING = {UnreachableError.exit_code, GoneError.exit_code, NoSpaceError.exit_code}
"""How a cutover may end while something is broken."""
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
    """What may break: both servers and the ways to them, the location, and ``moveout follow`` itself; and who writes.
    ``chosen`` draws what breaks when; ``done`` counts it.
    """

    def __init__(self, engine, pair, toxiproxy, disk, log, chosen):
        self.engine = engine
        self.chosen = chosen
        self.done = Counter[str]()
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

    def kill_server(self, name):
        server = self.servers[name]
        server.child.start_again(server.accepts)

    def cut(self, name):
        self.proxies[name].cut()
        time.sleep(self.chosen.uniform(0.1, 3))
        self.proxies[name].mend()

    def reset(self, name):
        """Connections break after some bytes."""
        toxic = self.proxies[name].add("limit_data", bytes=self.chosen.randrange(1000, 300_000))
        time.sleep(self.chosen.uniform(1, 3))
        self.proxies[name].remove(toxic)

    def take_away(self, _name):
        home, away = self.disk / "bundle", self.disk / "away"
        home.rename(away)
        time.sleep(self.chosen.uniform(0.5, 3))
        # A write under way makes the directory anew, sees that, and takes back what it wrote.
        eventually(lambda: not [path for path in home.rglob("*") if path.is_file() and path.name != ".lock"])
        shutil.rmtree(home, ignore_errors=True)
        away.rename(home)

    def fill(self, _name):
        filler = self.disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(2**16))
        time.sleep(self.chosen.uniform(1, 3))
        filler.unlink()

    def kill_follow(self, _name):
        self.end_follow()
        self.start_follow()

    def start_writers(self):
        self.writers = self.engine.write(self.servers["old"], self.urls["old"])

    @property
    def transfers(self):
        """How many are acknowledged."""
        return sum(self.writers.acknowledged.values())

    def wait_for_writers(self):
        before = self.transfers
        eventually(lambda: self.transfers > before)

    def break_one(self, *more):
        """Break one thing, and mend it. ``more`` that may break."""
        faults = [
            (self.kill_server, "old"), (self.kill_server, "new"), (self.cut, "old"), (self.cut, "new"),
            (self.reset, "old"), (self.reset, "new"), (self.take_away, ""), (self.fill, ""), *more,
        ]  # fmt: skip
        fault, name = self.chosen.choice(faults)
        self.note(fault.__name__, name, self.transfers)
        fault(name)
        self.done[KINDS[fault.__name__]] += 1

    def wait_until_level(self):
        query = "SELECT count(*) FROM log"
        reached = self.engine.fetch(self.urls["old"], query)
        self.note("behind", reached)
        eventually(lambda: self.engine.fetch(self.urls["new"], query) >= reached)

    def lose_log(self):
        """Lose what is not captured, while the server cannot be reached. Following stops, and says what is missing."""
        self.proxies["old"].cut()
        self.wait_for_writers()
        self.engine.lose_log(self.urls["old"])
        self.proxies["old"].mend()
        assert self._follow.wait(120) == 3, self.log
        text = " ".join(self.log.split())
        assert re.search(self.engine.lost_log, text), self.log
        assert "take the base again" in text, self.log
        assert "moveout follow --delta" in text, self.log

    def compare_from_now_on(self):
        """Do one thing that the message says."""
        must("follow", "-c", "moveout.toml", "--delta", "--until-caught-up")
        self._begin_follow()

    def take_base_again(self):
        """Do the other thing that the message says."""
        self.urls["new"] = self.servers["new"].database()
        self.take_base("new-bundle")
        self.start_follow()

    def cut_over(self):
        """Cut over while something breaks. Where that ends it, the old side is in use, and the command goes on."""
        words = ("cutover", "-c", "moveout.toml", "--hold", *self.engine.hold_words, "--yes", "--json")
        self.note("cutover")
        with ThreadPoolExecutor(1) as pool:
            cutover = pool.submit(moveout, *words)
            time.sleep(self.chosen.uniform(1, 15))
            self.break_one()
            ended = cutover.result()
        self.note("ended with", ended.code)
        if ended.code:
            self.note(ended.said)
            assert ended.code in PASSING, ended.said
            if '"switched": null' not in ended.said:  # the location did not say so
                self.wait_for_writers()
            self.writers.end_coming_back()
            must(*words)
        assert list(self.disk.glob("*/changes/cutover.json")), "the record of the switch is lost"

    def end(self):
        self.writers.end()
        self.end_follow()
        moveout("hold", "undo", "moveout-cutover.json", "--yes")
        sys.stderr.write(self.log)  # pytest shows it where the test has failed

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
def scene(number, engine, pair, toxiproxy, tiny_disk, tmp_path, monkeypatch):
    """A bank whose database is exported and restored."""
    seed = os.environ.get("MOVEOUT_SEED") or str(random.SystemRandom().randrange(10**9))
    sys.stderr.write(f"\nMOVEOUT_SEED={seed}\n")
    grow(tiny_disk)
    monkeypatch.chdir(tmp_path)
    scene = Scene(
        engine, pair, toxiproxy, tiny_disk, tmp_path / "follow.log", random.Random(f"{seed}/{number}")
    )
    for name, server in scene.servers.items():
        monkeypatch.setenv(f"{name.upper()}_PASSWORD", server.password)
    engine.run_sql(scene.urls["old"], engine.bank)
    scene.start_writers()  # an account that is made after the export would be named by the cutover
    try:
        scene.take_base("bundle")
    except BaseException:
        scene.end()
        raise
    scene.note("restored")
    return scene


@pytest.mark.parametrize("number", ROUNDS)
def test_nothing_is_lost_or_doubled(scene):
    try:
        scene.start_follow()
        for _ in range(FAULTS_A_ROUND):
            time.sleep(scene.chosen.uniform(0.2, 2))
            scene.break_one((scene.kill_follow, ""))
            scene.assert_following()
            scene.wait_for_writers()
        scene.wait_until_level()
        if scene.chosen.random() < 0.5:
            scene.note("lose_log")
            scene.lose_log()
            remedy = scene.chosen.choice([scene.compare_from_now_on, scene.take_base_again])
            scene.note(remedy.__name__)
            remedy()
            scene.done["lost logs"] += 1
        scene.cut_over()
    finally:
        scene.end()
    scene.engine.check_transfers(scene.urls["old"], scene.urls["new"], scene.writers)
    for kind, number_of_faults in scene.done.items():
        count(kind, number_of_faults)
    count("cutovers")
    must("clean", "-c", "moveout.toml", "--changes", "--yes")  # a server has ten replication slots
