"""``moveout discover``: what is there is listed, what cannot be seen is named, and the case file has all of it."""

import re
import sqlite3
import tomllib
from contextlib import closing

import pytest

from exporters.discovery import FoundSource
from migrate.case.loader import load
from migrate.discover.source_names import source_name
from scripts.process import free_port
from tests.cli.conftest import call
from tests.discover.conftest import READER, only_media


def names(server):
    return [source["name"] for source in server["sources"]]


def by_name(server):
    return {source["name"]: source for source in server["sources"]}


def test_everything_on_a_host_comes_into_the_case_file(old_host, tmp_path):
    case = tmp_path / "moveout.toml"
    ended = call("discover", old_host.pg, old_host.my, old_host.s3, old_host.files, "--to", case, "--json")
    assert ended.code == 3, ended.err
    postgres, mariadb, minio, files = ended.json["result"]["servers"]

    assert names(postgres) == ["Odd Name*", "app", "closed", "empty", "locked"]
    assert by_name(postgres)["app"]["items"] == 3
    assert by_name(postgres)["app"]["size_bytes"] > 1_000_000
    assert by_name(postgres)["empty"]["facts"] == ["empty"]
    assert by_name(postgres)["Odd Name*"]["url"] == f"{old_host.pg}/Odd%20Name%2A"
    assert by_name(postgres)["closed"]["problems"] == [
        'it allows no connections: ALTER DATABASE "closed" ALLOW_CONNECTIONS true'
    ]

    assert names(mariadb) == ["app", "blog"]
    assert [source["items"] for source in mariadb["sources"]] == [2, 0]
    assert by_name(mariadb)["blog"]["facts"] == ["empty"]
    assert mariadb["gaps"] == []

    assert names(minio) == ["bare", "forbidden", "kept", "media", "sealed"]
    buckets = by_name(minio)
    assert (buckets["media"]["items"], buckets["media"]["size_bytes"]) == (2, 10)
    assert (buckets["kept"]["items"], buckets["kept"]["facts"]) == (2, ["region us-east-1", "versioned"])
    assert buckets["sealed"]["facts"] == ["region us-east-1", "versioned", "object lock", "empty"]

    assert names(files) == ["main.db", "data/deep/no-ending"]
    plain = {entry["name"].rpartition("/")[2]: entry["size_bytes"] for entry in files["not_taken"]}
    assert plain == {"data": 1500, "app": 10}
    assert len({entry["advice"] for entry in files["not_taken"]}) == 1, "they are one line"
    assert files["gaps"] == [
        f"{old_host.files}/linked is a link to {old_host.files.parent}/elsewhere: name that one, too"
    ]

    written = load(case)
    assert len(written.sources) == 5 + 2 + 5 + 2
    assert written.sources["odd-name"].url == f"{old_host.pg}/Odd%20Name%2A"
    assert written.sources["app"].url == f"{old_host.pg}/app"
    assert written.sources["app-mysql"].url == f"{old_host.my}/app"
    empty = {name for name, source in written.sources.items() if source.may_be_empty}
    assert empty == {"empty", "locked", "blog", "bare", "forbidden", "sealed"}
    assert [move.old for move in written.moves] == [
        old_host.pg,
        old_host.my,
        old_host.s3,
        f"sqlite://{old_host.files}",
    ]
    assert all(move.new is None for move in written.moves)
    assert len(written.not_taken) == 2
    assert ended.json["result"]["unfilled"] == [move.old for move in written.moves]


def test_what_an_account_may_not_read_is_named(old_host):
    limited_pg = old_host.pg.replace("postgres@", f"{READER}@")
    limited_my = old_host.my.replace("moveout@", f"{READER}@")
    environment = {**old_host.limited, "PGPASSFILE": "/dev/null"}
    ended = call("discover", limited_pg, limited_my, "s3://", "--json", env=environment)
    assert ended.code == 3, ended.err
    postgres, mariadb, minio = (by_name(server) for server in ended.json["result"]["servers"])
    assert postgres["app"]["problems"] == [
        "1 table may not be read by this role: public.secrets",
        "1 table with row-level security, which hides rows from this role: public.own",
    ]
    assert postgres["locked"]["problems"] == [
        f'this role may not connect: GRANT CONNECT ON DATABASE "locked" TO "{READER}"'
    ]
    assert (postgres["locked"]["items"], postgres["locked"]["size_bytes"]) == (None, None)
    assert postgres["empty"]["problems"] == []
    assert list(mariadb) == ["app"]
    assert mariadb["app"]["problems"] == ["1 table may not be read by this account: hidden"]
    assert "SHOW DATABASES" in ended.json["result"]["servers"][1]["gaps"][0]
    assert minio["forbidden"]["problems"] == ["its objects may not be listed: AccessDenied"]
    assert minio["media"]["problems"] == []


def test_a_url_of_one_database_or_bucket_takes_that_one_and_names_the_others(old_host, tmp_path):
    case = tmp_path / "moveout.toml"
    urls = [f"{old_host.pg}/app", f"s3://media?profile={old_host.minio.profile}"]
    ended = call("init", case, *urls)
    assert ended.code == 0, ended.out + ended.err
    assert "also on this server, not taken: Odd Name*, closed, empty, locked" in ended.out
    assert "also on this server, not taken: bare, forbidden, kept, sealed" in ended.out
    written = load(case)
    assert {name: source.url for name, source in written.sources.items()} == {
        "app": urls[0],
        "media": urls[1],
    }
    assert list(written.servers) == []
    assert [move.old for move in written.moves] == [old_host.pg, old_host.s3]

    ended = call("discover", f"{old_host.pg}/empty", "--to", case, "--json")
    assert ended.json["result"]["changes"] == [{"kind": "added", "what": "source", "name": "empty"}]
    assert ended.json["result"]["servers"][0]["others"] == ["Odd Name*", "app", "closed", "locked"]
    assert "gone" not in case.read_text()

    ended = call("discover", f"{old_host.pg}/ap")
    assert ended.code == 7, ended.out
    assert (
        "not there: nothing of this name is on the server: it has Odd Name*, app, closed, empty" in ended.out
    )
    assert "In all" not in ended.out


def test_what_is_there_is_drawn_within_80_columns(old_host):
    dead = "postgresql://me@127.0.0.1:1"
    narrow = {"TTY_COMPATIBLE": "1", "NO_COLOR": "1", "COLUMNS": "80"}
    ended = call("discover", old_host.pg, old_host.s3, dead, env=narrow)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", ended.out)
    assert ended.code == 3, shown
    assert [line for line in shown.splitlines() if len(line) > 80] == []
    assert {"name", "holds", "size", "notes"} in [set(line.split()) for line in shown.splitlines()]
    assert re.search(r"^app +3 tables +[\d.]+ MB *$", shown, re.MULTILINE), shown
    assert "region" not in shown, "all buckets have the same"
    assert "! closed: it allows no connections: ALTER DATABASE" in " ".join(shown.split())
    assert re.search(r"^In all 10 sources, .* without 1 of 3 servers$", shown, re.MULTILINE), shown


def test_a_url_of_the_empty_database_of_every_server_says_what_takes_all_of_it(old_host, tmp_path):
    ended = call("discover", f"{old_host.pg}/postgres", "--to", tmp_path / "moveout.toml")
    assert ended.code == 3, ended.out
    words = " ".join(ended.out.split())
    assert "also on this server, not taken: Odd Name*, app, closed, empty, locked" in words
    assert "the database postgres is empty, and the URL names this one alone" in words
    assert f"for all of the server: moveout discover '{old_host.pg}'" in words
    assert "not there" not in words
    assert "had all of it" not in words


def test_a_bucket_is_taken_where_the_account_may_not_list_the_others(old_host):
    ended = call("discover", "s3://media", "--json", env=only_media(old_host.minio))
    server = ended.json["result"]["servers"][0]
    assert (names(server), ended.code) == (["media"], 3)
    assert "what else is there could not be listed" in server["gaps"][0]


def test_a_server_that_does_not_answer_is_a_gap_and_the_others_go_on(old_host, tmp_path):
    case = tmp_path / "moveout.toml"
    down = f"postgresql://me@127.0.0.1:{free_port()}"
    ended = call("discover", down, old_host.my, "--to", case)
    assert ended.code == 3, ended.err
    assert f"{down}/  not asked" in ended.out.replace("\n", "") or down in ended.out
    assert set(load(case).sources) == {"app", "blog"}
    assert [server.url for server in load(case).servers] == [down, old_host.my]

    ended = call("discover", down, "--to", tmp_path / "none.toml")
    assert ended.code == 5, ended.out
    assert not (tmp_path / "none.toml").exists()


EDITED = """\
# my own notes\r
[case]
name = "acme" # of the customer

[[source]] # the shop
name = "gone-one"
url = "{pg}/dropped"
password = "env:OLD_PASSWORD"

[bundle]
location = "./b"

[[source]]
name = 'shop'
url = "{pg}/app"

[[left_out]]
url = "{pg}/locked"
reason = "it is a copy"

[[destination]]
from = "{pg}"
to = "postgresql://new"
"""


def test_a_case_is_added_to_and_all_else_stays_as_it_was(old_host, tmp_path, monkeypatch):
    monkeypatch.setenv("OLD_PASSWORD", old_host.postgres.password)
    case = tmp_path / "moveout.toml"
    case.write_bytes(EDITED.format(pg=old_host.pg).encode())
    before = case.read_bytes()
    ended = call("discover", "-c", case)
    assert ended.code == 3, ended.err
    after = case.read_bytes()
    mark = b" # gone: discover did not find it on "
    start = after.index(mark)
    assert after[:start] + after[start + len(mark) + 10 :][: len(before) - start] == before
    written = load(case)
    assert list(written.sources) == ["gone-one", "shop", "odd-name", "closed", "empty"]
    assert written.sources["empty"].secrets["password"].reference == "env:OLD_PASSWORD"
    assert len(written.moves) == 1
    assert "gone-one" in ended.out
    assert "odd-name" in ended.out

    ended = call("discover", "-c", case)
    assert case.read_bytes() == after
    assert "nothing was changed" in ended.out

    old_host.postgres.database("dropped")
    try:
        assert call("discover", "-c", case, "--json").json["result"]["changes"] == [
            {"kind": "back", "what": "source", "name": "gone-one"}
        ]
        assert case.read_bytes().startswith(before)
    finally:
        old_host.postgres.execute("DROP DATABASE dropped")


def test_names_that_no_file_can_hold_as_they_are(old_host, tmp_path):
    odd = 'two\nlines "quoted" \\ é'
    old_host.postgres.database(odd.replace('"', '""'))
    try:
        case = tmp_path / "moveout.toml"
        assert call("discover", old_host.pg, "--to", case).code == 3
        parsed = tomllib.loads(case.read_text())
        assert [source["name"] for source in parsed["source"]][-1] == "two-lines-quoted-e"
        assert (
            load(case)
            .sources["two-lines-quoted-e"]
            .url.endswith("/two%0Alines%20%22quoted%22%20%5C%20%C3%A9")
        )
    finally:
        old_host.postgres.execute('DROP DATABASE "' + odd.replace('"', '""') + '"')


def test_a_file_that_is_no_case_is_an_error_and_stays(tmp_path):
    case = tmp_path / "moveout.toml"
    case.write_text("not = toml = at all")
    ended = call("discover", tmp_path, "--to", case)
    assert ended.code == 2
    assert "is not TOML" in ended.err
    assert case.read_text() == "not = toml = at all"
    ended = call("discover")
    assert (ended.code, "no server is named" in ended.err) == (2, True)
    ended = call("discover", "ftp://host")
    assert (ended.code, "not a database or bucket that moveout supports" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("to", "place"), [("", ""), ("new.db", "new.db"), ("sqlite://{folder}/folder", "folder/shop.db")]
)
def test_a_discovered_file_comes_up_at_its_new_address_or_is_named(tmp_path, to, place):
    """It is asked like a server, and has no name on it."""
    (tmp_path / "folder").mkdir()
    with closing(sqlite3.connect(tmp_path / "shop.db")) as made:
        made.execute("CREATE TABLE t AS SELECT 1 AS x")
        made.commit()
    case = tmp_path / "moveout.toml"
    assert call("discover", tmp_path / "shop.db", "--to", case).code == 0
    case.write_text(case.read_text().replace('to = ""', f'to = "{to.format(folder=tmp_path)}"'))
    ended = call("run", "-c", case, "--json")
    if not place:
        sentences = " ".join(ended.json["result"]["sentences"])
        assert (ended.code, "Not brought up: shop." in sentences) == (3, True), sentences
        return
    assert ended.code == 0, ended
    with closing(sqlite3.connect(tmp_path / place)) as made:
        assert made.execute("SELECT x FROM t").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("own", "name"),
    [("Shop & Söhne", "shop-sohne"), ("ä 3.db", "a-3-db"), ("数据", "source"), ("taken", "taken-sqlite")],
)
def test_the_name_of_a_source_is_its_own_in_plain_letters(own, name):
    url = "postgresql://old/x" if own != "taken" else "sqlite:///x/taken"
    assert source_name(FoundSource(url, own), {"taken"}) == name
