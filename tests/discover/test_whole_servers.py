"""Whole servers as sources and destinations: each database and bucket is a source of its own, under its name."""

import pytest

from exporters.discovery import Discovery, FoundSource
from migrate.bundle.reader import BundleReader
from migrate.case.model import Case, Endpoint
from migrate.discover.left_behind import find_left_behind
from migrate.discover.servers import ServerAnswer, servers_of
from migrate.storage.registry import open_location
from scripts.process import free_port
from tests.cli.conftest import call, result


def sources_of(bundle):
    return {source.name: source for source in BundleReader(open_location(str(bundle))).info.sources}


def test_a_whole_server_leaves_and_comes_up_under_the_same_names(
    old_host, other_postgres, other_mariadb, other_minio, tmp_path
):
    bundle = tmp_path / "bundle"
    words = (f"pg={old_host.pg}/*p*", f"{old_host.my}/*", f"s3://m*?profile={old_host.minio.profile}")
    ended = call("plan", *words, "--json")
    assert ended.code == 0, ended.err
    assert [source["name"] for source in ended.json["result"]["sources"]] == [
        "pg-app",
        "pg-empty",
        "app",
        "blog",
        "media",
    ]
    ended = call("export", *words, "--to", bundle, "--json")
    assert ended.code == 0, ended.err
    assert list(sources_of(bundle)) == ["pg-app", "pg-empty", "app", "blog", "media"]
    assert call("verify", bundle).code == 0, "an empty source is no damage"

    new_pg = f"pg=postgresql://postgres@{other_postgres.host}:{other_postgres.port}/*"
    new_my = f"mysql://moveout@{other_mariadb.host}:{other_mariadb.port}/*"
    new_s3 = f"s3://*?profile={other_minio.profile}"
    restored = result("restore", bundle, new_pg, new_my, new_s3, "--report-to", tmp_path / "report")
    urls = {outcome["source"]: outcome["url"].rpartition("/")[2] for outcome in restored["restored"]}
    assert urls == {
        "pg-app": "app",
        "pg-empty": "empty",
        "app": "app",
        "blog": "blog",
        "media": f"media?profile={other_minio.profile}",
    }
    assert call("verify", bundle, "--against", new_pg, new_my, new_s3).code == 0


def test_a_run_lists_each_server_once(old_host, tmp_path):
    case = tmp_path / "moveout.toml"
    case.write_text(f'[bundle]\nlocation = "bundle"\n[[source]]\nurl = "{old_host.my}/*"\n')
    ended = call("run", "-c", case)
    assert ended.code == 0, ended.err
    assert ended.err.count("  discover  ") == 1, ended.err


def test_a_case_sends_each_server_to_a_new_one(old_host, other_mariadb, tmp_path):
    case = tmp_path / "moveout.toml"
    text = f"""
[bundle]
location = "bundle"
[[source]]
url = "{old_host.my}/*"
[[source]]
name = "files"
url = "sqlite://{old_host.files}/*"
[[left_out]]
url = "{old_host.my}/blog"
reason = "nobody reads it"
[[destination]]
from = "{old_host.my}"
to = ""
[[destination]]
from = "sqlite://{old_host.files}"
to = "new"
"""
    case.write_text(text)
    assert call("export", "-c", case, "--quiet").code == 0
    assert set(sources_of(tmp_path / "bundle")) == {"app", "files-main", "files-data-deep-no-ending"}
    ended = call("restore", "-c", case)
    assert ended.code == 2
    assert f"does not say where these come up (of {old_host.my}: app)" in " ".join(ended.err.split())
    ended = call("run", "-c", case, "--json")
    assert ended.code == 3, ended.err
    assert f"where {old_host.my} comes up again" in ended.json["result"]["sentences"][4]

    for name in ("app", "blog"):
        with other_mariadb.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {name}")
    case.write_text(
        text.replace('to = ""', f'to = "mysql://moveout@{other_mariadb.host}:{other_mariadb.port}"')
    )
    ended = call("run", "-c", case, "--json")
    assert ended.code == 0, ended.err
    assert ended.json["result"]["sentences"][2] == "Up on the new host: all 3 sources."
    assert (tmp_path / "new" / "main.db").is_file()
    assert (tmp_path / "new" / "data" / "deep" / "no-ending").is_file()


@pytest.mark.parametrize(
    ("url", "words", "code"),
    [
        ("{pg}", "names a server, and no database", 2),
        ("{my}", "names a server, and no database", 2),
        ("s3://?profile={profile}", "names an account, and no bucket", 2),
        ("{pg}/none-*", "nothing matches", 7),
        ("s3://none-*?profile={profile}", "nothing matches", 7),
        ("postgresql://me@127.0.0.1:{closed}/*", "refused", 5),
        ("s3://*?profile=missing-one", "there is no AWS profile", 2),
    ],
)
def test_what_names_nothing_is_an_error_with_words(old_host, tmp_path, url, words, code):
    filled = url.format(pg=old_host.pg, my=old_host.my, profile=old_host.minio.profile, closed=free_port())
    for command in (["plan"], ["export", "--to", tmp_path / "bundle"]):
        ended = call(*command, f"x={filled}")
        assert (ended.code, words in " ".join(ended.err.split())) == (code, True), ended.err
    assert not (tmp_path / "bundle").exists()


def test_what_stays_on_the_servers_is_named_at_the_end_and_in_the_report(old_host, tmp_path):
    case = tmp_path / "moveout.toml"
    case.write_text(f"""
[bundle]
location = "bundle"
[[server]]
url = "{old_host.my}"
[[server]]
url = "postgresql://me@127.0.0.1:{free_port()}"
[[source]]
name = "shop"
url = "{old_host.pg}/app"
[[left_out]]
url = "{old_host.pg}/closed"
reason = "a copy of <app>"
[[not_taken]]
kind = "DynamoDB table"
name = "sessions"
size_bytes = 1500
region = "eu-west-1"
advice = "export it to S3"
""")
    also_pg = f"Also on {old_host.pg}, not taken: Odd Name*, empty, locked."
    also_my = f"Also on {old_host.my}, not taken: app, blog."
    ended = call("plan", "-c", case)
    assert also_pg in " ".join(ended.out.split()), ended.err
    ended = call("run", "-c", case, "--json")
    assert ended.code == 3, ended.err  # of one server nothing is known at all
    sentences = ended.json["result"]["sentences"]
    assert {also_pg, also_my} <= set(sentences)
    assert any("NOTHING of postgresql://me@127.0.0.1" in sentence for sentence in sentences)
    page = (tmp_path / "bundle" / "REPORT.html").read_text()
    for text in (also_my, "a copy of &lt;app&gt;", "DynamoDB table", "sessions", "export it to S3"):
        assert text in page
    assert call("verify", tmp_path / "bundle").code == 3
    assert also_my in call("run", "-c", case, "--json").json["result"]["sentences"]


def test_the_bucket_of_the_bundle_is_not_left_behind():
    case = Case("night", None, {}, None, Endpoint("s3://kept/acme?profile=p"), {})
    sources = [FoundSource(f"s3://{name}?profile=p", name) for name in ("kept", "other")]
    stays = find_left_behind(case, {}, [ServerAnswer("s3://?profile=p", Discovery(sources))])
    assert [server.names for server in stays.servers] == [["other"]]


def test_a_bucket_that_is_read_in_its_own_way_is_not_left_behind():
    """The options of a bucket had passed for those of another account."""
    urls = ("s3://paid?profile=p&request_payer=requester", "s3://keyed?sse_c=file:media.key&profile=p")
    sources = {f"bucket-{number}": Endpoint(url) for number, url in enumerate(urls)}
    case = Case("night", None, sources, None, None, {})
    assert [server.url for server in servers_of(case)] == [urls[0]]
    listed = [FoundSource(f"s3://{name}?profile=p", name) for name in ("paid", "keyed", "other")]
    stays = find_left_behind(case, sources, [ServerAnswer("s3://?profile=p", Discovery(listed))])
    assert [server.names for server in stays.servers] == [["other"]]
