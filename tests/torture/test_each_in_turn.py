"""A whole move in which one thing breaks: the others arrive, the summary names it, and the same command completes it.

``pytest -s`` prints what a user sees, and a table of all cases at the end. MOVEOUT_BREAKS draws so many of the cases,
and MOVEOUT_SEED repeats the draw.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.tools.clients import boto_client
from tests.tools.disks import grow, tiny_disk
from tests.tools.processes import kill_server
from tests.tools.tally import count
from tests.torture.command import MOVEOUT, Ended, moveout
from tests.torture.whole_host import Contents, Host

__all__ = ["tiny_disk"]
pytestmark = [pytest.mark.torture, pytest.mark.timeout(1800)]

CONTENTS = Contents(
    postgres=("app", "wiki"),
    mariadb=("shop", "forum"),
    buckets=("media", "logs"),
    files=("a.db", "b.db"),
    rows=10_000,
    objects=40,
    object_bytes=50_000,
)
SOURCES = {
    "postgres": frozenset({"app", "wiki"}),
    "mariadb": frozenset({"shop", "forum"}),
    "minio": frozenset({"media", "logs"}),
    "files": frozenset({"a", "b"}),
}
ALL = frozenset().union(*SOURCES.values())
COPIES = "copies"
READER = "reader"
CASE = """
[case]
name = "night"
deadline = "2099-01-01T00:00:00Z"
[bundle]
location = "{bundle}"
[transfer]
location = "s3://{bucket}/bundle?profile={copies}"
[limits]
bwlimit = "2M"
"""


@dataclass
class Trial:
    """A move from one host to another. A case file of it, and what breaks."""

    old: Host
    new: Host
    folder: Path
    bundle: Path
    disk: Path
    """A small one."""
    at_end: list[Callable[[], None]] = field(default_factory=list)

    @property
    def case(self) -> Path:
        return self.folder / "moveout.toml"

    def write_case(self) -> None:
        text = CASE.format(bundle=self.bundle, bucket=COPIES, copies=self.new.minio.profile)
        names = (CONTENTS.postgres, CONTENTS.mariadb, CONTENTS.buckets, CONTENTS.files)
        for old, new, of_server in zip(self.old.urls, self.new.urls, names, strict=True):
            for name in of_server:
                text += f'[[source]]\nname = "{name.partition(".")[0]}"\nurl = "{place(old, name)}"\n'
            text += f'[[destination]]\nfrom = "{old}"\nto = "{new}"\n'
        self.case.write_text(text)

    def edit(self, before: str, after: str) -> None:
        text = self.case.read_text()
        assert before in text, text
        self.case.write_text(text.replace(before, after))

    def run(self, broken: Break | None = None) -> Ended:
        """Run the move; break it in its stage."""
        stage = broken.stage if broken else ""
        started = time.monotonic()
        with subprocess.Popen(
            [MOVEOUT, "run", "-c", self.case],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
        ) as process:
            lines = []
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if broken and stage and line.startswith(f"{stage} ─"):
                    stage = ""
                    while process.poll() is None and not broken.when(self):
                        time.sleep(0.1)
                    assert process.poll() is None, "".join(lines)
                    broken.act(self)
        assert not stage, "".join(lines)
        return Ended(process.returncode, "".join(lines), time.monotonic() - started)


def place(server: str, name: str) -> str:
    """Return the URL of a thing on a server."""
    return server.replace("://?", f"://{name}?") if "://?" in server else f"{server}/{name}"


def bring_back(server) -> None:
    """Start a killed server again, at the same port and with its data."""
    server.child.start_again(server.accepts if hasattr(server, "accepts") else lambda: s3_answers(server))


def s3_answers(server) -> bool:
    try:
        boto_client(server.profile).list_buckets()
    except (BotoCoreError, ClientError):
        return False
    return True


@dataclass(frozen=True)
class Break:
    """What breaks in a move, in which stage and when there, and how it is mended. ``lost``: sources of which some do
    not arrive.
    """

    name: str
    stage: str
    act: Callable[[Trial], None]
    mend: Callable[[Trial], None]
    lost: frozenset[str]
    code: int = 3
    when: Callable[[Trial], bool] = lambda _: True


def has_rows(server) -> bool:
    """Tell whether a restore has made its first table."""
    try:
        with psycopg.connect(server.url_of("app")) as connection:
            return connection.execute("SELECT to_regclass('people')").fetchone() != (None,)
    except psycopg.OperationalError:
        return False


def no_rights(trial: Trial) -> None:
    with trial.old.mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE OR REPLACE USER {READER} IDENTIFIED BY '{trial.old.mariadb.password}'")
        cursor.execute(f"GRANT SELECT, SHOW VIEW, TRIGGER ON forum.* TO {READER}")
        cursor.execute(f"REVOKE SELECT ON forum.* FROM {READER}")
        cursor.execute(f"GRANT SELECT ON forum.items TO {READER}")
    url = place(trial.old.urls[1], "forum")
    trial.edit(f'url = "{url}"', f'url = "{url.replace("moveout@", f"{READER}@")}"')


def all_rights(trial: Trial) -> None:
    with trial.old.mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"GRANT SELECT, SHOW VIEW, TRIGGER ON forum.* TO {READER}")


def missing_destination(trial: Trial) -> None:
    text = f'[[destination]]\nsource = "app"\nurl = "{trial.new.postgres.url_of("elsewhere")}"\n'
    trial.case.write_text(trial.case.read_text() + text)


def made_destination(trial: Trial) -> None:
    trial.new.postgres.database("elsewhere")
    trial.at_end.append(lambda: trial.new.postgres.execute("ALTER DATABASE elsewhere RENAME TO app"))


def full_location(trial: Trial) -> None:
    trial.edit(f'location = "{trial.bundle}"', f'location = "{trial.disk}/bundle"')


def full_destination(trial: Trial) -> None:
    trial.edit(f'to = "{trial.new.urls[3]}"', f'to = "sqlite://{trial.disk}"')
    trial.new = replace(trial.new, folder=trial.disk)


def damaged_copy(trial: Trial) -> None:
    for words in (("export",), ("transfer",)):
        ended = moveout(*words, "-c", trial.case)
        assert ended.code == 0, ended.said
    client = boto_client(trial.new.minio.profile)
    listed = client.list_objects_v2(Bucket=COPIES, Prefix="bundle/data/wiki/tables")["Contents"]
    key = next(
        entry["Key"] for entry in listed if "people" in entry["Key"] and entry["Key"].endswith(".parquet")
    )
    body = client.get_object(Bucket=COPIES, Key=key)["Body"].read()
    client.put_object(Bucket=COPIES, Key=key, Body=body[:-1000] + bytes(1000))


def copied_again(trial: Trial) -> None:
    ended = moveout("transfer", "-c", trial.case, "--recheck")
    assert ended.code == 0, ended.said


BREAKS = (
    Break(
        "a server is down at the start", "",
        lambda t: kill_server(t.old.mariadb), lambda t: bring_back(t.old.mariadb), SOURCES["mariadb"],
    ),
    Break(
        "a server is killed in export", "export",
        lambda t: kill_server(t.old.postgres), lambda t: bring_back(t.old.postgres), SOURCES["postgres"],
        when=lambda t: any(t.bundle.glob("data/app/tables/*/*")),
    ),
    Break(
        "a server is killed in transfer", "transfer",
        lambda t: kill_server(t.new.minio), lambda t: bring_back(t.new.minio), SOURCES["minio"],
        when=lambda t: "Contents" in boto_client(t.new.minio.profile).list_objects_v2(Bucket=COPIES),
    ),
    Break(
        "a server is killed in verify", "verify",
        lambda t: kill_server(t.new.minio), lambda t: bring_back(t.new.minio), SOURCES["minio"],
    ),
    Break(
        "a server is killed in restore", "restore",
        lambda t: kill_server(t.new.postgres), lambda t: bring_back(t.new.postgres), SOURCES["postgres"],
        when=lambda t: has_rows(t.new.postgres),
    ),
    Break(
        "a server is killed in compare", "compare",
        lambda t: kill_server(t.new.minio), lambda t: bring_back(t.new.minio), SOURCES["minio"],
    ),
    Break("a role may not read a table", "", no_rights, all_rights, frozenset({"forum"})),
    Break("a destination is missing", "", missing_destination, made_destination, frozenset({"app"})),
    Break("the location is full", "", full_location, lambda t: grow(t.disk), ALL),
    Break("a destination is full", "", full_destination, lambda t: grow(t.disk), SOURCES["files"]),
    Break("a file of the copy is damaged", "", damaged_copy, copied_again, frozenset({"wiki"}), code=6),
)  # fmt: skip


@pytest.fixture(scope="module")
def old(servers, tmp_path_factory):
    host = Host.start(servers, "old", tmp_path_factory.mktemp("hosts") / "old")
    host.fill(CONTENTS)
    yield host
    host.stop()


@pytest.fixture
def trial(old, servers, tmp_path, tiny_disk):
    new = Host.start(servers, f"new-{tmp_path.name}", tmp_path / "new")
    boto_client(new.minio.profile).create_bucket(Bucket=COPIES)
    made = Trial(old, new, tmp_path, tmp_path / "bundle", tiny_disk)
    made.write_case()
    yield made
    new.stop()
    shutil.rmtree(tmp_path / "bundle", ignore_errors=True)


@pytest.fixture(scope="module")
def table():
    """Rows of a table that is printed at the end: what broke, exit codes, what did not arrive, what was said."""
    rows = [("what breaks", "exit", "not arrived", "then", "said")]
    yield rows
    sys.stderr.write(f"\nMOVEOUT_SEED={SEED}\n" + "\n".join(" | ".join(row) for row in rows) + "\n")


SEED = (
    os.environ.get("MOVEOUT_SEED")
    or os.environ.get("PYTEST_XDIST_TESTRUNUID")  # all processes of a run draw the same cases
    or str(random.SystemRandom().randrange(10**9))
)


def drawn() -> list[Break]:
    """Return the cases of this run, in their order."""
    most = min(int(os.environ.get("MOVEOUT_BREAKS", len(BREAKS))), len(BREAKS))
    return [BREAKS[place] for place in sorted(random.Random(SEED).sample(range(len(BREAKS)), most))]


@pytest.mark.parametrize("broken", drawn(), ids=lambda case: case.name.replace(" ", "-"))
def test_the_others_arrive_and_the_same_command_completes_it(broken, trial, table):
    if not broken.stage:
        broken.act(trial)
    ended = trial.run(broken)
    sys.stderr.write(f"\n=== {broken.name}: exit {ended.code}\n{ended.said}")
    summary = rows_of(ended.said)
    behind = {source for source, words in summary.items() if words != ["yes"] * 4}
    broken.mend(trial)
    again = trial.run()
    sys.stderr.write(f"\n=== {broken.name}, mended: exit {again.code}\n{again.said}")
    last_words = ended.said[ended.said.index("\nsummary ─") :]
    problem = next((line.strip() for line in last_words.splitlines() if re.match(r" +→ ", line)), "")
    table.append((broken.name, str(ended.code), ", ".join(sorted(behind)), str(again.code), problem))
    assert not re.search("Traceback|error ignored", ended.said + again.said), "words of libraries"
    assert ended.code == broken.code
    assert set(summary) == ALL
    assert behind
    assert behind <= broken.lost
    assert behind < ALL, "some arrive"
    if broken.stage in {"transfer", "verify"}:
        assert "no copy of the bundle is verified yet" in ended.said
    assert again.code == 0
    for last in trial.at_end:
        last()
    assert trial.new.contents(CONTENTS) == trial.old.contents(CONTENTS)
    count("evictions")


def rows_of(said: str) -> dict[str, list[str]]:
    """Return the words of each source in the table at the end: exported, verified, restored, compared."""
    rows = {}
    for line in said[said.index("\nsummary ─") :].splitlines():
        source, *words = re.split(" {2,}", line.rstrip())
        if source in ALL:
            rows[source] = words[:4]
    return rows
