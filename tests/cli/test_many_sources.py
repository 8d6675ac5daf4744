"""What is printed of many sources: a line each where something is to be said, and totals."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from migrate.cli.common.terminal import Console
from migrate.cli.restore import Restored
from migrate.restore.common.api import RestoreOutcome
from tests.cli.conftest import call
from tests.tools.clients import boto_client

DATABASES = ("app", "billing", "crm", "shop", "stock", "wiki")


@pytest.fixture
def case(tmp_path):
    """A case of six SQLite files."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    for number, name in enumerate(DATABASES):
        with closing(sqlite3.connect(tmp_path / "old" / f"{name}.sqlite")) as connection, connection:
            connection.execute("CREATE TABLE notes (id integer PRIMARY KEY, text)")
            connection.executemany("INSERT INTO notes (text) VALUES (?)", [("note",)] * (number + 1))
    case = tmp_path / "moveout.toml"
    ended = call("discover", tmp_path / "old", "--to", case)
    assert f"{case}, added: 1 server, 6 sources, 1 destination\n" in ended.out
    case.write_text(
        case.read_text()
        .replace('to = ""', f'to = "{tmp_path}/new"')
        .replace('"./bundle"', f'"{tmp_path}/bundle"')
    )
    return case


def test_a_plan_of_many_sources_is_one_table_and_tells_the_rest_when_asked(case):
    brief = call("plan", "-c", case).out
    assert "6 sources" in brief
    assert "6 destinations can take all that was seen" in brief
    assert len([line for line in brief.splitlines() if line.startswith("export ")]) == 1
    assert "\n\n" not in brief

    detailed = call("plan", "-c", case, "-v").out
    assert len([line for line in detailed.splitlines() if line.startswith("notes ")]) == len(DATABASES)
    assert len([line for line in detailed.splitlines() if line.startswith("export ")]) == len(DATABASES)


def test_a_run_of_many_sources_has_one_line_a_stage(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = call("run", "-c", case)
    assert ended.code == 0, ended.err
    assert "6 of 6 sources exported: 21 items" in ended.out
    assert "6 of 6 sources restored: 21 items" in ended.out
    assert "Compared row by row: all 6 sources." in ended.out
    stages, _, summary = ended.out.partition("source   exported")
    assert "wiki" not in stages.partition("export ")[2]
    assert summary.count("yes") == 4 * len(DATABASES)
    assert "restore wiki" not in ended.err
    again = call("run", "-c", case)
    assert (again.code, "6 of 6 sources restored: 21 items" in again.out) == (0, True), again
    assert "nothing was done" not in again.out


def test_an_export_says_what_it_cannot_represent_and_where_all_of_it_is_listed(case, tmp_path):
    words = "the bundle's data/losses.parquet lists all"
    alone = call("export", f"six=sqlite://{tmp_path}/old", "--to", tmp_path / "alone").out
    assert f"  cannot be represented: one moment of files; {words}\n" in alone
    assert f"\nCould not be represented: one moment (1); {words}\n" in call("verify", tmp_path / "alone").out
    for name in DATABASES:
        (tmp_path / name).mkdir()
        for copy in ("one", "two"):
            shutil.copy(tmp_path / "old" / f"{name}.sqlite", tmp_path / name / f"{copy}.sqlite")
    together = call(
        "export", *(f"sqlite://{tmp_path}/{name}" for name in DATABASES), "--to", tmp_path / "all"
    )
    assert f"\nCannot be represented: one moment (6); {words}\n" in together.out, together


def test_of_many_sources_it_is_told_that_one_was_not_made_as_it_was(capsys):
    without_lock = "made the bucket b1 without object lock, which the server refuses"
    outcomes = [
        RestoreOutcome("b0", 1, 1, routine=("made the bucket b0",)),
        RestoreOutcome("b1", 1, 1, notes=(without_lock,)),
    ]
    urls = {"b0": "s3://b0", "b1": "s3://b1"}
    Restored("bundle", urls, outcomes, 1.0, "id", "now", detailed=False).draw(Console())
    printed = capsys.readouterr().out
    assert (without_lock in printed, "made the bucket b0" in printed) == (True, False)
    assert outcomes[0].as_json()["notes"] == ["made the bucket b0"]


def test_what_many_buckets_lose_is_one_line(minio, other_minio, make_bucket, tmp_path):
    pairs = []
    for number in range(5):
        bucket, new = make_bucket(minio), make_bucket(other_minio)
        boto_client(minio.profile).put_object(Bucket=bucket, Key="a", Body=b"x")
        pairs.append(
            (
                f"b{number}=s3://{bucket}?profile={minio.profile}",
                f"b{number}=s3://{new}?profile={other_minio.profile}",
            )
        )
    assert call("export", *(old for old, _ in pairs), "--to", tmp_path / "bundle").code == 0
    restored = call("restore", tmp_path / "bundle", *(new for _, new in pairs), cwd=tmp_path)
    assert restored.code == 0, restored
    assert restored.out.count("last modified") == 1
    assert "Not as at the source: last modified (5)" in restored.out
