"""What goes wrong ends with its own exit code, one sentence, a next step, no traceback, no secret."""

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import psycopg
import pytest

from migrate.case.model import Endpoint
from scripts.process import free_port
from tests.cli.conftest import call, make_file, run
from tests.golden.make import BUNDLE

SECRET = "hunter2-correct-horse"


def check(ended, code, *words):
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err
    assert "moveout: " in ended.err
    assert "\n→ " in ended.err
    for word in words:
        assert word in ended.err
    assert SECRET not in ended.out + ended.err


def test_a_wrong_password(shop, tmp_path):
    env = {"PGPASSFILE": os.devnull, "PGPASSWORD": SECRET}
    check(call("export", f"app={shop}", "--to", tmp_path / "b", env=env), 4)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PGSERVICE", "nope", 'definition of service "nope" not found'),
        ("PGSSLMODE", "require", "server does not support SSL"),
        ("PGOPTIONS", "-c nonsense=1", 'parameter "nonsense"'),
        ("PGTARGETSESSIONATTRS", "standby", "not in hot standby mode"),
    ],
)
def test_a_setting_that_keeps_libpq_out_is_no_outage(variable, value, said, shop, tmp_path):
    ended = call("export", f"shop={shop}", "--to", tmp_path / "bundle", env={variable: value})
    assert (ended.code, said in ended.err, "check the settings" in ended.err) == (2, True, True), ended.err


def test_a_wrong_secret_key(media, tmp_path):
    env = {"AWS_ACCESS_KEY_ID": "minio", "AWS_SECRET_ACCESS_KEY": SECRET}
    url, profile = media.split("?profile=")
    config = tmp_path / "config"
    lines = Path(os.environ["AWS_CONFIG_FILE"]).read_text(encoding="utf-8")
    config.write_text(lines.replace(f"[profile {profile}]", "[default]"))
    env |= {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    check(call("export", f"media={url}", "--to", tmp_path / "b", env=env), 4)


def test_a_host_that_does_not_answer(tmp_path):
    url = f"postgresql://me@127.0.0.1:{free_port()}/db"
    check(call("export", f"app={url}", "--to", tmp_path / "b"), 5, "127.0.0.1")


def test_a_bucket_that_is_not_there(minio, tmp_path):
    url = f"s3://no-such-bucket-here?profile={minio.profile}"
    check(call("export", f"media={url}", "--to", tmp_path / "b"), 7, "no-such-bucket-here")


def test_a_database_that_is_not_there(postgres, tmp_path):
    url = postgres.url.rpartition("/")[0] + "/no_such_database"
    check(call("export", f"app={url}", "--to", tmp_path / "b"), 7, "no_such_database")


def test_a_profile_that_is_not_there(tmp_path):
    check(call("transfer", tmp_path, "s3://bucket?profile=nobody"), 2, "nobody")


def test_a_location_that_holds_something_else(shop, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    check(call("export", f"app={shop}", "--to", tmp_path), 2, "holiday.jpg")
    assert (tmp_path / "holiday.jpg").read_bytes() == b"x"


def test_a_database_that_is_not_empty(shop, tmp_path, other_postgres):
    assert call("export", f"app={shop}", "--to", tmp_path / "b", "-q").code == 0
    new = other_postgres.database()
    with psycopg.connect(new) as connection:
        connection.execute("CREATE TABLE precious (id int)")
    check(call("restore", tmp_path / "b", f"app={new}"), 2, "precious")


def test_a_limit_of_memory_is_no_defect(tmp_path):
    bundle = shutil.copytree(BUNDLE, tmp_path / "bundle")
    limit = 100 * 2**20
    ended = subprocess.run(
        [Path(sys.executable).with_name("moveout"), "verify", bundle],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False), ended.stderr
    assert "no memory left" in ended.stderr
    assert "fewer --workers" in ended.stderr


def test_a_user_without_a_home_and_a_name(tmp_path):
    """As with a number of one's own in a container: no command began."""
    as_nobody = ["unshare", "--user", "--map-user=12345"]
    if subprocess.run([*as_nobody, "true"], check=False, capture_output=True).returncode:
        pytest.skip("NOT TESTED: a user without a name needs a name space of users")
    program = Path(sys.executable).with_name("moveout")
    environment = {"PATH": os.environ["PATH"]}
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
    for words in (["export", "a=a.db", "--to", "b"], ["verify", "b"], ["keys", "init", "key"]):
        argv = [*as_nobody, program, *words]
        ended = subprocess.run(
            argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr
    assert " user-12345" in (tmp_path / "key.pub").read_text()


def test_a_sync_whose_folder_cannot_be_made(tmp_path, shop, other_postgres):
    (tmp_path / "state").touch()
    ended = call("sync", shop, other_postgres.database(), env={"XDG_STATE_HOME": str(tmp_path / "state")})
    check(ended, 7, "is a file, not a directory", "--work DIR")


def test_odd_places_are_no_defects(tmp_path, monkeypatch):
    deep = tmp_path.joinpath(*["d" * 200] * 3, "deep.db")
    deep.parent.mkdir(parents=True)
    make_file(tmp_path / "short.db")
    (tmp_path / "short.db").rename(deep)
    too_long = call("export", deep, "--to", tmp_path / "bundle")
    assert (too_long.code, "a longer path than SQLite opens" in too_long.err) == (2, True), too_long.err
    (tmp_path / "loop").symlink_to("loop")
    looped = call("status", "loop", cwd=tmp_path)
    assert (looped.code, "Too many levels of symbolic links" in looped.err) == (7, True), looped.err
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    ended = run("export", "a.db", "--to", "b")
    assert (ended.code, "cd to another one" in ended.err) == (7, True), ended.err


def test_a_location_without_a_bundle(tmp_path):
    check(call("verify", tmp_path / "nothing"), 7, "nothing")


def test_a_corrupt_case_file(tmp_path):
    path = tmp_path / "moveout.toml"
    path.write_text("[[source]\nname = ")
    check(call("run", "-c", path), 2, "moveout.toml", "TOML")


def test_what_a_bundle_cannot_be_compared_with_or_lacks_is_said_once_with_what_helps(tmp_path):
    with closing(sqlite3.connect(tmp_path / "a.db")) as made:
        made.execute("CREATE TABLE t (x)")
        made.commit()
    bundle = tmp_path / "b"
    assert call("export", f"a=sqlite://{tmp_path}/a.db", "--to", bundle).code == 0
    gone = call("verify", bundle, "--against", f"a=sqlite://{tmp_path}/none.db")
    check(gone, 7, "none.db")
    assert gone.err.count("there is no file") == 1, gone.err
    (bundle / "data/catalog.parquet").unlink()
    for words in (("ls", bundle), ("restore", bundle, f"a=sqlite://{tmp_path}/new.db")):
        check(call(*words), 6, "catalog.parquet", "transfer --recheck")


@pytest.mark.parametrize("text", ["", "# [bundle]\n"])
def test_an_empty_case_file_is_named(tmp_path, text):
    path = tmp_path / "moveout.toml"
    path.write_text(text)
    check(call("status", path), 2, "moveout.toml is empty", "moveout init")


@pytest.mark.parametrize("password", [SECRET, f"a@b%c/d#{SECRET}?e"])
@pytest.mark.parametrize("scheme", ["postgresql", "mysql", "s3"])
def test_a_password_in_a_url_is_refused_and_not_repeated(tmp_path, scheme, password):
    url = f"{scheme}://me:{password}@127.0.0.1:1/db"
    shown = f"{scheme}://me:…@127.0.0.1:1/db has a password in it"
    check(call("export", f"app={url}", "--to", tmp_path / "b"), 2, shown, "take it out of the URL")
    check(call("discover", url), 2, shown)
    assert not (tmp_path / "b").exists()


def test_a_port_and_a_name_with_an_at_sign_are_no_password():
    for url in ("postgresql://old:1/a@b", "postgresql://[::1]:1/a@b", "mysql://me@old:1/a@b"):
        assert Endpoint(url).shown == url


@pytest.mark.parametrize("word", ["old.example", "127.0.0.1:5432"])
def test_the_name_of_a_host_alone_is_no_directory(word):
    check(call("discover", word), 2, f"'{word}' is neither a URL nor a path", "postgresql://me@HOST")


@pytest.mark.parametrize(
    "words",
    [
        ("export", "app=postgresql://me@[::1/app", "--to", "b"),
        ("export", "postgresql://[/*", "--to", "b"),
        ("status", "s3://[b"),
        ("discover", "mysql://old[1]x"),
    ],
)
def test_a_url_that_cannot_be_taken_apart_is_named(words):
    check(call(*words), 2, "is not a URL", "%5B")


def test_what_follows_a_number_sign_in_a_url_is_not_dropped(tmp_path):
    for url in ("mysql://me@127.0.0.1:1/shop#2", "s3://bucket/pre#fix"):
        check(call("export", f"app={url}", "--to", tmp_path / "b"), 2, "%23")
    check(call("export", f"app=sqlite://{tmp_path}/a", "--to", f"file://{tmp_path}/b#2"), 2, "%23")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("export",),
        ("export", "app"),
        ("export", "APP=s3://b", "--to", "x"),
        ("export", "a=ftp://b", "--to", "x"),
        ("plan", "a=s3://b", "--deadline", "soon"),
        ("transfer", "one"),
        ("restore", "location"),
        ("verify", "one", "two"),
        ("clean",),
        ("plan", "a=s3://b", "--bwlimit", "fast"),
    ],
)
def test_words_that_make_no_sense(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(call(*words), 2)


def test_errors_as_json_have_a_code_and_a_next_step(tmp_path):
    ended = call("verify", tmp_path / "nothing", "--json")
    assert ended.json["ok"] is False
    assert ended.json["moveout"] == 1
    assert ended.json["exit_code"] == ended.code
    assert set(ended.json["error"]) == {"code", "message", "next"}


@pytest.mark.parametrize(
    ("words", "code", "step"),
    [
        (("export", "--foo"), 2, "moveout export -h"),
        (("exprot",), 2, "moveout -h"),
        (("keys", "init", "--foo"), 2, "moveout keys init -h"),
    ],
)
def test_words_that_no_command_has_are_told_as_json_too(words, code, step):
    ended = call(*words, "--json")
    assert (ended.code, ended.json["exit_code"], ended.json["command"]) == (code, code, words[0])
    assert (ended.json["error"]["code"], ended.json["error"]["next"]) == ("usage", step)
    assert words[-1] in ended.json["error"]["message"]


def test_an_existing_case_file_is_not_overwritten(tmp_path):
    path = tmp_path / "my.toml"
    assert call("init", path).code == 0
    before = path.read_text()
    check(call("init", path), 2, "my.toml")
    assert path.read_text() == before


def test_version_and_help():
    assert call("--version").out.startswith(f"moveout {version('moveout')}\n")
    verbs = ("init", "plan", "export", "transfer", "verify", "restore", "run", "status", "clean")
    said = call("--help").out
    assert all(verb in said for verb in verbs)
