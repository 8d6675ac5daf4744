"""What a test of pgcopydb does to its source is read from its scripts; pagila is that of one commit."""

import subprocess

import pytest

from scripts.outsiders.pgcopydb_follow import PAGILA, pagila_scripts, workload_of
from scripts.outsiders.suite import Skipped

COPYDB = r"""
# psql -d ${PGCOPYDB_SOURCE_PGURI} -c 'drop table a'
cp /usr/src/pagila/pagila-schema.sql /tmp/schema.sql
psql -d ${PGCOPYDB_SOURCE_PGURI} -1 -f /tmp/schema.sql
pgcopydb clone --follow
psql -v a=1 -d ${PGCOPYDB_SOURCE_PGURI} \
    -f /usr/src/pgcopydb/dml.sql
psql -d ${PGCOPYDB_TARGET_PGURI} -c 'delete from b'
psql -d ${PGCOPYDB_SOURCE_PGURI} -c 'select count(*) from a'
psql -d ${PGCOPYDB_SOURCE_PGURI} <<'EOF'
insert into c values (1);
EOF
"""


def git(directory, *words):
    argv = ["git", "-C", directory, "-c", "user.name=a", "-c", "user.email=a@example.org", *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout whose newest commit is another than that with the scripts."""
    directory = tmp_path / "checkout"
    directory.mkdir()
    git(directory, "init", "--quiet")
    for name in ("schema", "data"):
        (directory / f"pagila-{name}.sql").write_text(f"create {name};")
    git(directory, "add", ".")
    git(directory, "commit", "--quiet", "-m", "a")
    commit = git(directory, "rev-parse", "HEAD")
    git(directory, "rm", "--quiet", "pagila-schema.sql")
    git(directory, "commit", "--quiet", "-m", "b")
    monkeypatch.setenv(PAGILA, str(directory))
    return commit


def test_a_workload_is_what_is_written_before_and_after_the_copy(tmp_path, checkout):
    test = tmp_path / "cdc-x"
    test.mkdir()
    (test / "copydb.sh").write_text(COPYDB)
    (test / "dml.sql").write_text("insert into b values (:a);")
    workload = workload_of(test, pagila_scripts(tmp_path / "pagila", checkout))
    assert [step.text for step in workload.before] == ["create schema;"]
    assert [step.text for step in workload.after] == [
        "insert into b values (:a);",
        "insert into c values (1);",
    ]
    assert workload.after[0].variables == {"a": "1"}
    assert workload_of(test, None) is None


def test_pagila_that_is_not_there_is_skipped_with_the_reason(tmp_path, checkout, monkeypatch):
    newest = pagila_scripts(tmp_path / "newest", "HEAD")
    assert isinstance(newest, Skipped)
    assert "pagila-schema.sql of HEAD" in newest.reason
    monkeypatch.delenv(PAGILA)
    assert PAGILA in pagila_scripts(tmp_path / "none", checkout).reason
