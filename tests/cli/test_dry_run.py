"""``--dry-run`` says what would be done and changes nothing; ``--log-file`` keeps what happens, without secrets."""

import hashlib
import json
import re
import sqlite3
from contextlib import closing

import psycopg
import pytest

from tests.cli.conftest import call, run
from tests.tools.clients import boto_client

PASSWORD = "tomatoes&öl"


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """A directory with a database and its bundle."""
    directory = tmp_path_factory.mktemp("host")
    with closing(sqlite3.connect(directory / "app.db")) as connection, connection:
        connection.execute("CREATE TABLE notes (id integer PRIMARY KEY, text)")
        connection.execute("INSERT INTO notes (text) VALUES ('one'), ('two')")
    assert call("export", f"app=sqlite://{directory}/app.db", "--to", directory / "bundle").code == 0
    return directory


def listing(directory):
    """Return each file with the digest of its bytes."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("export app=sqlite://{host}/app.db --to {host}/new", 0, "would export app: 2 items, "),
        ("export app=sqlite://{host}/app.db --to {host}/bundle", 0, "nothing is to be done"),
        ("export app=sqlite://{host}/none.db --to {host}/new", 7, "app cannot be read: "),
        ("restore {host}/bundle app=sqlite://{host}/restored.db", 0, "would restore app: 2 items, "),
        ("clean {host}/bundle", 0, "would remove: work file _work/left.part, 20 B, "),
        ("erase {host}/bundle", 0, "would erase for good: "),
    ],
)
def test_a_dry_run_says_what_would_be_done_and_changes_nothing(host, words, code, sentence):
    (host / "bundle/_work").mkdir(exist_ok=True)
    (host / "bundle/_work/left.part").write_bytes(b"left by a killed run")
    before = listing(host)
    ended = call(*words.format(host=host).split(), "--dry-run")
    assert (ended.code, sentence in ended.out) == (code, True), ended
    assert listing(host) == before


def test_a_dry_run_of_buckets_says_what_is_made_what_is_the_same_and_how_much_more_there_is(
    minio, bucket, tmp_path
):
    client = boto_client(minio.profile)
    for number in range(23):
        client.put_object(Bucket=bucket, Key=f"from/k{number:02}", Body=b"")
    source, other, to = (f"s3://{bucket}{path}?profile={minio.profile}" for path in ("/from", "-new", "/to"))

    synced = call("sync", f"s={source}", f"d={to}", "--dry-run")
    assert synced.out.splitlines()[-3:] == ["  k19", "  and 3 more", "Nothing was touched."], synced
    client.put_object(Bucket=bucket, Key="to/strange", Body=b"")
    for words, becomes in (([], "stay"), (["--delete"], "be removed")):
        synced = call("sync", f"s={source}", f"d={to}", "--dry-run", *words)
        assert f"1 only at the destination, would {becomes}:\n  strange\n" in synced.out, synced
    client.delete_object(Bucket=bucket, Key="to/strange")

    again = call(
        *("export", f"a={source}", f"b=s3://{bucket}/from", "--to", tmp_path / "new", "--dry-run"),
        env={"AWS_PROFILE": minio.profile},
    )
    assert "a and b are the same data: it is exported twice" in again.err
    client.put_object(Bucket=bucket, Key="from/x\n", Body=b"")
    odd = call("export", f"{bucket}={source}", "--to", tmp_path / "new", "--dry-run").out
    assert f"! {bucket}: keys that are no file names: 1" in odd, odd

    assert call("export", f"media={source}", "--to", tmp_path / "bundle").code == 0
    missing = call("restore", tmp_path / "bundle", f"media={other}", "--dry-run")
    assert (missing.code, "unless the restore makes it" in missing.out) == (3, True)
    made = call("restore", tmp_path / "bundle", f"media={other}", "--dry-run", "--create")
    assert (made.code, "which is made" in made.out, "!" in made.out) == (0, True, False)


def test_rows_that_nobody_has_counted_are_estimated(postgres, tmp_path):
    url = postgres.database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int, x text) WITH (autovacuum_enabled = false)")
        connection.execute("INSERT INTO t SELECT g, repeat('x', 30) FROM generate_series(1, 5000) g")
        ended = call("export", f"app={url}", "--to", tmp_path / "new", "--dry-run")
        uncounted = int(re.search(r"would export app: about ([\d,]+) items", ended.out)[1].replace(",", ""))
        connection.execute("ANALYZE t")
        connection.execute("INSERT INTO t SELECT g, repeat('x', 30) FROM generate_series(1, 5000) g")
    grown = call("plan", f"app={url}", "--json").json["result"]["sources"][0]["items"]
    assert 4000 < uncounted < 7000
    assert 9900 < grown < 10100


def test_a_log_file_has_what_happened_and_no_secret(host, tmp_path):
    log = tmp_path / "log.jsonl"
    assert run("verify", host / "bundle", "--log-file", log).code == 0
    url = f"postgresql://me:{PASSWORD.replace('&', '%26').replace('ö', '%C3%B6')}@127.0.0.1:9/app"
    refused = run(
        "export", f"app={url}", "--to", tmp_path / "b", "--log-file", log, env={"MYSQL_PWD": "in-the-env"}
    )
    assert refused.code == 2
    wrong = run(
        "verify", tmp_path / f"{PASSWORD}-in-the-env", "--log-file", log, env={"MYSQL_PWD": "in-the-env"}
    )
    assert wrong.code == 7

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["event"] for line in lines if line["event"] in {"start", "result", "error"}] == [
        *("start", "result", "start", "error", "start", "error"),
    ]
    assert {"begin", "end"} <= {line["event"] for line in lines}
    for secret in (PASSWORD.replace("&", "%26"), "in-the-env"):
        assert secret not in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_that_a_log_file_ends_on_a_full_disk_is_printed_once_and_the_work_goes_on(host):
    ended = call("verify", host / "bundle", "--log-file", "/dev/full")
    assert (ended.code, ended.err.count("/dev/full cannot be written any more")) == (0, 1), ended
