"""A whole host and an AWS account, from nothing to "all is up on the new host", by four commands: discover, doctor,
run, status.

Nothing is edited but the addresses of the new servers.
"""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from migrate.case.loader import load
from migrate.storage.s3.access.minio_accounts import Accounts
from migrate.storage.s3.client import parse
from scripts.servers import S3Server
from tests.discover.aws.moto_account import moto_account
from tests.discover.aws.sample_account import (
    EXPECTED_NOT_TAKEN,
    EXPECTED_SOURCES,
    IRELAND,
    REGIONS,
    VIRGINIA,
    fill_without_databases,
)
from tests.tools.clients import boto_client
from tests.torture.command import moveout
from tests.torture.whole_host import Contents, Host

pytestmark = [pytest.mark.torture, pytest.mark.timeout(900)]

BUCKETS = tuple(f"bucket-{number:02d}" for number in range(12))
FORBIDDEN = BUCKETS[3]
CONTENTS = Contents(
    postgres=("app", "billing", "analytics", "wiki", "Empty DB"),
    mariadb=("shop", "forum", "crm"),
    buckets=BUCKETS,
    files=("f0.db", "f1.db", "f2.db", "ä 3.db"),
    rows=5_000,
    objects=30,
    object_bytes=2_000,
    empty=frozenset({"Empty DB", BUCKETS[2]}),
    versioned=frozenset({BUCKETS[1]}),
)
AWS_BUCKETS = {name for _, name in EXPECTED_SOURCES if name.startswith("shop-")}


@pytest.fixture
def hosts(servers, tmp_path):
    old, new = (Host.start(servers, f"four-{name}", tmp_path / name) for name in ("old", "new"))
    old.fill(CONTENTS)
    yield old, new
    old.stop()
    new.stop()


@pytest.fixture
def account(servers, tmp_path):
    """An AWS account with 17 services in three regions, under the profile ``aws``."""
    folder = tmp_path / "moto"
    folder.mkdir()
    with moto_account(folder) as running:
        servers.know(S3Server("aws", running.endpoint, "test", "test", folder, running.child))
        fill_without_databases(running.client)
        yield running


@pytest.fixture
def limited(hosts, servers):
    """The profile of an account of the old host that may not read one bucket. A call lets it."""
    minio = hosts[0].minio
    allow = {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}
    deny = {
        "Effect": "Deny",
        "Action": ["s3:ListBucket", "s3:GetObject"],
        "Resource": [f"arn:aws:s3:::{FORBIDDEN}*"],
    }
    policy = {"Version": "2012-10-17", "Statement": [allow, deny]}
    accounts = Accounts(parse(f"s3://none?profile={minio.profile}"))
    made = accounts.add("limited", policy, datetime.now(UTC) + timedelta(days=1))
    server = replace(minio, profile="limited", access_key=made.access_key, secret_key=made.secret_key)
    servers.know(server)
    return lambda: (servers.s3.remove(server), servers.know(replace(minio, profile="limited")))


def test_four_commands_move_a_whole_host(hosts, account, limited, tmp_path, monkeypatch):
    old, new = hosts
    monkeypatch.chdir(tmp_path)
    account_url = "s3://?profile=limited"
    urls = [account_url if url.startswith("s3:") else url for url in old.urls]
    result = moveout("discover", *urls, "aws://aws", "--to", "moveout.toml")
    assert result.code == 3, result.said
    assert FORBIDDEN in result.said
    case = tmp_path / "moveout.toml"
    addresses = iter([*new.urls, new.urls[2]])
    text, filled = re.subn(
        r'^to = ""$', lambda _: f'to = "{next(addresses)}"', case.read_text(), flags=re.MULTILINE
    )
    assert filled == 5, text
    case.write_text(text)
    listed = {(entry.kind, entry.name, entry.region) for entry in load(case).not_taken}
    databases = ("RDS", "Aurora", "Neptune")
    assert listed >= {entry for entry in EXPECTED_NOT_TAKEN if not entry[0].startswith(databases)}
    assert {region for _, _, region in listed} >= set(REGIONS)
    examined = moveout("doctor", "-c", "moveout.toml")
    assert examined.code == 4, examined.said

    old.postgres.database("later")
    boto_client(old.minio.profile).create_bucket(Bucket="later-bucket")
    account.client("sqs", IRELAND).create_queue(QueueName="later-queue")
    account.client("s3", VIRGINIA).create_bucket(Bucket="later-aws")

    ran = moveout("run", "-c", "moveout.toml")
    assert ran.code == 3, ran.said
    assert f"Compared row by row: 25 of 26 sources; not: {FORBIDDEN}." in ran.said
    last_words = ran.said[ran.said.index("Out: ") :]
    for server, names in (
        (old.urls[0], "later"),
        (account_url, "later-bucket"),
        ("aws://aws", "later-aws, SQS queue .*later-queue"),
    ):
        line = rf"Also on {re.escape(server)}, not taken: {names}\."
        assert re.search(line, last_words), last_words

    limited()
    again = moveout("run", "-c", "moveout.toml")
    assert again.code == 0, again.said
    assert "Compared row by row: all 26 sources." in again.said
    state = moveout("status", "-c", "moveout.toml")
    assert state.code == 0, state.said
    assert new.contents(CONTENTS) == old.contents(CONTENTS)
    buckets = {bucket["Name"] for bucket in boto_client(new.minio.profile).list_buckets()["Buckets"]}
    assert buckets == {*BUCKETS, *AWS_BUCKETS}
