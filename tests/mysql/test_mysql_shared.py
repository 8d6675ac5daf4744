"""Databases as people have them, by the command line: out, back, and equal as mariadb-dump and the server see them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from exporters.mysql.connect import parse_url
from tests.mysql.databases import checksums, fetch
from tests.samples import sample

pytestmark = pytest.mark.shared

ROOT = Path(__file__).parents[2]
SAMPLES = {
    "chinook": (["chinook-mysql.sql"], 11, 15607),
    "sakila": (["sakila-mysql-schema.sql", "sakila-mysql-data.sql"], 16, 47273),
}
_NOT_HERE = re.compile(r"(?:CREATE|DROP) (?:SCHEMA|DATABASE)\b|USE ", re.IGNORECASE)

_ITS_NAME = re.compile(r"\bsakila\.(?=\w)")


def moveout(*words: object) -> dict:
    command = [Path(sys.executable).parent / "moveout", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["result"]


def client(program: str, url: str, *words: str, given: str = "") -> str:
    """Run one of MariaDB's programs on a database; the password is in the environment."""
    address = parse_url(url)
    login = [f"--host={address.host}", f"--port={address.port}", f"--user={address.user}", "--skip-ssl"]
    command = [program, "--no-defaults", *login, *words, address.database]
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def load(url: str, scripts: list[Path]) -> None:
    """Run a sample's scripts in the database of ``url`` instead of one of their own."""
    for script in scripts:
        text = _ITS_NAME.sub("", script.read_text(encoding="utf-8-sig"))
        lines = text.splitlines(keepends=True)
        client("mariadb", url, given="".join(line for line in lines if not _NOT_HERE.match(line)))


def dump(url: str) -> str:
    words = ("--no-data", "--routines", "--triggers", "--events", "--skip-comments")
    return client("mariadb-dump", url, *words)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_comes_back_equal(mariadb, other_mariadb, tmp_path, name):
    names, tables, rows = SAMPLES[name]
    scripts = [path for path in map(sample, names) if path is not None]
    if len(scripts) < len(names):
        pytest.skip(f"the sample database {name} is not next to the checkout")
    url, target = mariadb.database(), other_mariadb.database()
    load(url, scripts)
    bundle = tmp_path / "bundle"
    assert moveout("export", f"app={url}", "--to", bundle)["complete"]
    restored = moveout("restore", bundle, f"app={target}")["restored"][0]
    assert restored["findings"] == []
    moveout("verify", bundle, "--level", "full", "--against", f"app={target}")
    assert dump(target) == dump(url)
    assert checksums(target) == checksums(url)
    assert len(fetch(url, "SHOW FULL TABLES WHERE Table_type = 'BASE TABLE'")) == tables
    assert restored["items"] == rows


def test_one_table_of_a_sample_by_the_command_line(mariadb, other_mariadb, tmp_path):
    script = sample("chinook-mysql.sql")
    if script is None:
        pytest.skip("the sample database chinook is not next to the checkout")
    url, target = mariadb.database(), other_mariadb.database()
    load(url, [script])
    moveout("export", f"app={url}", "--to", tmp_path / "bundle")
    restored = moveout("restore", tmp_path / "bundle", f"app={target}", "--only", "Artist", "--only", "Album")
    assert restored["restored"][0]["items"] == 275 + 347
    assert {row[0] for row in fetch(target, "SHOW TABLES")} == {"Artist", "Album"}
