"""What names a source on the command line: a URL, a file, NAME=URL."""

import os
import re
import sqlite3
from contextlib import closing

import pytest

from migrate.bundle.export_state import SourceName
from migrate.cli.common.source_words import locations_and_sources, names_of_bundle, parse_pairs
from migrate.errors import UsageError
from tests.cli.conftest import call, make_file, run

PG = "postgresql://me@old"


def test_a_url_or_a_file_is_named_after_what_it_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        f"{PG}/shop?sslmode=require",
        "s3://media/photos?profile=old",
        "notes.db",
        "x=mysql://a/b",
        "mysql://a/*",
        "mysql://a/my%20files",
        f"{PG}/Blog",
        "s3://my.media?profile=old",
    ]
    named = {name: endpoint.url for name, endpoint in parse_pairs(words).items()}
    assert named == {
        "shop": words[0],
        "media": words[1],
        "notes": f"sqlite://{tmp_path}/notes.db",
        "x": "mysql://a/b",
        "mysql://a/*": "mysql://a/*",
        "my-files": "mysql://a/my%20files",
        "blog": f"{PG}/Blog",
        "my-media": words[-1],
    }


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        ([f"{PG}/shop", "mysql://me@old/shop"], "shop-mysql=mysql://me@old/shop"),
        ([f"shop={PG}/app", "mysql://me@old/shop"], "shop-mysql=mysql://me@old/shop"),
        ([f"Shop={PG}/shop"], f"shop={PG}/shop"),
        ([f"{PG}/Shop", f"{PG}/shop"], f"shop-postgresql={PG}/shop"),
        ([PG], f"{PG}/DATABASE, or '{PG}/*'"),
        (["s3://?profile=old"], "'s3://BUCKET?profile=old', or 's3://*?profile=old'"),
        (["https://old:9000/media"], "'s3://BUCKET?profile=NAME'"),
        (["media"], "'s3://BUCKET?profile=NAME', or FILE.db"),
        (["/"], "said by --to"),
        (["old/app=x"], "FILE.db"),
    ],
)
def test_a_word_without_a_name_for_a_source_is_refused_with_what_to_type(words, typed):
    with pytest.raises(UsageError) as refused:
        parse_pairs(words)
    assert typed in refused.value.next_step


def test_a_database_whose_name_has_a_space_leaves_by_the_url_that_is_named_for_it(postgres, tmp_path):
    url = f"{postgres.database().rpartition('/')[0]}/my shop"
    postgres.execute('CREATE DATABASE "my shop"')
    try:
        refused = call("export", url, "--to", tmp_path / "bundle", "--allow-empty")
        written = url.replace(" ", "%20")
        assert (refused.code, f"→ write it as {written}" in refused.err) == (2, True), refused.err
        ended = call("export", written, "--to", tmp_path / "bundle", "--allow-empty", "--json")
        assert (ended.code, ended.json["result"]["sources"][0]["name"]) == (0, "my-shop"), ended.err
    finally:
        postgres.execute('DROP DATABASE "my shop"')


def test_a_destination_is_named_after_the_source_of_the_bundle():
    recorded = [
        SourceName("app", f"{PG}/shop"),
        SourceName("blog", f"{PG}/blog"),
        SourceName("b", "s3://media"),
    ]
    name_of = names_of_bundle(lambda: recorded)
    words = ["postgresql://new/shop", "postgresql://new/blog", "s3://other"]
    assert list(parse_pairs(words, name_of)) == ["app", "blog", "b"]
    with pytest.raises(UsageError, match="app, blog") as refused:
        parse_pairs(["postgresql://new/third"], name_of)
    assert "app=postgresql://new/third" in refused.value.next_step
    with pytest.raises(UsageError, match="no source of the kind"):
        parse_pairs(["mysql://new/shop"], name_of)


def test_locations_are_told_from_sources(tmp_path):
    words = ["s3://vault/b", f"{PG}/shop", "s3://media", str(tmp_path), "new.db", "a=b"]
    assert locations_and_sources(words) == (
        ["s3://vault/b", str(tmp_path)],
        [f"{PG}/shop", "s3://media", "new.db", "a=b"],
    )


def test_a_location_behind_the_sources_is_answered_with_the_whole_command(tmp_path):
    make_file(tmp_path / "shop.db")
    ended = run("export", "shop.db", "bundle", "--quiet", cwd=tmp_path)
    step = re.search("→ moveout (.*)", ended.err)[1]
    assert (ended.code, step) == (2, "export shop.db --to bundle --quiet")
    assert run(*step.split(), cwd=tmp_path).code == 0


def test_a_file_leaves_and_comes_up_without_a_name_on_the_command_line(tmp_path):
    make_file(tmp_path / "shop.db")
    assert call("export", "shop.db", "--to", "bundle", cwd=tmp_path).code == 0
    restored = call("restore", "bundle", "new.db", cwd=tmp_path)
    assert restored.code == 0, restored.err
    with closing(sqlite3.connect(tmp_path / "new.db")) as new:
        assert new.execute("SELECT count(*) FROM t").fetchone() == (1,)
    assert call("verify", "bundle", "--against", "new.db", cwd=tmp_path).code == 0


def test_files_and_locations_need_no_names_in_utf_8(tmp_path):
    """An old host has names in Latin-1: these leave like any others, and come up under them."""
    odd = os.fsdecode(b"caf\xe9.db")
    make_file(tmp_path / odd)
    found = call("discover", ".", "--to", "case.toml", cwd=tmp_path)
    assert (found.code, "/caf%E9.db" in (tmp_path / "case.toml").read_text()) == (0, True), found.err
    for words in [
        ("export", "-c", "case.toml", "--to", "first"),
        ("export", odd, "--to", odd.replace("db", "d")),
        ("status", odd.replace("db", "d")),
        ("restore", odd.replace("db", "d"), "new-" + odd),
        ("verify", "first", "--against", "new-" + odd),
    ]:
        ended = call(*words, cwd=tmp_path)
        assert ended.code == 0, (words, ended.err)
    assert (tmp_path / os.fsdecode(b"new-caf\xe9.db")).exists()


def test_a_command_that_takes_a_location_refuses_a_source():
    ended = call("seal", f"{PG}/shop")
    assert (ended.code, f"{PG}/shop is not a location" in ended.err) == (2, True), ended.err


@pytest.mark.parametrize("command", ["export", pytest.param("verify", marks=pytest.mark.torture)])
def test_a_case_file_without_its_option_is_answered_with_the_whole_command(tmp_path, command):
    (tmp_path / "m.toml").write_text("")
    ended = run(command, "m.toml", "--quiet", cwd=tmp_path)
    assert (ended.code, f"→ moveout {command} -c m.toml --quiet" in ended.err) == (2, True), ended.err


def test_a_name_that_the_case_lacks_is_named_and_a_plan_for_some_sources_calls_no_other_left_behind(tmp_path):
    for name in ("one", "two", "three"):
        make_file(tmp_path / f"{name}.db")
    case = tmp_path / "moveout.toml"
    sources = "".join(
        f'[[source]]\nname = "{name}"\nurl = "sqlite://{tmp_path}/{name}.db"\n' for name in ("one", "two")
    )
    case.write_text(f'[[server]]\nurl = "sqlite://{tmp_path}"\n{sources}')
    refused = call("plan", "oen", "-c", case)
    assert (refused.code, "has no source 'oen'\n→ it has one, two\n" in refused.err) == (2, True), refused.err
    planned = call("plan", "one", "-c", case)
    assert planned.code == 0, planned
    assert "not taken: three.db, plain files" in planned.out
