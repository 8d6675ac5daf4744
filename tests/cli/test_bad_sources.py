"""One source that cannot be read never stops the others: it is a gap by name, and the same command completes it."""

import secrets

import pytest

from scripts.process import free_port
from tests.cli.conftest import call, make_file
from tests.tools.clients import boto_client

CASE = """
[case]
name = "night"
[bundle]
location = "{folder}/bundle"
[[source]]
name = "app"
url = "{app}"
[[source]]
name = "forbidden"
url = "{forbidden}"
password = "env:STRANGER_PASSWORD"
[[source]]
name = "missing"
url = "{missing}"
[[source]]
name = "media"
url = "s3://{bucket}?profile={profile}"
[[source]]
name = "file"
url = "sqlite://{folder}/file.db"
"""


def test_four_bad_sources_of_five_are_named_and_completed_later(postgres, minio, shop, tmp_path, monkeypatch):
    word = secrets.token_hex(4)
    monkeypatch.setenv("STRANGER_PASSWORD", word)
    forbidden = postgres.database().rpartition("/")[2]
    postgres.execute(f"CREATE ROLE stranger_{word} LOGIN PASSWORD '{word}'")
    postgres.execute(f"REVOKE CONNECT ON DATABASE {forbidden} FROM PUBLIC")
    postgres.execute("CREATE TABLE t AS SELECT 1 AS x", forbidden)
    postgres.execute(f"GRANT SELECT ON t TO stranger_{word}", forbidden)
    case, bucket = tmp_path / "moveout.toml", f"bucket-{word}"
    case.write_text(
        CASE.format(
            folder=tmp_path,
            app=shop,
            forbidden=postgres.url_of(forbidden).replace("postgres@", f"stranger_{word}@"),
            missing=postgres.url_of(f"missing_{word}"),
            bucket=bucket,
            profile=minio.profile,
        )
    )

    planned = call("plan", "-c", case, "--json")
    assert planned.code == 3, planned.err
    assert [source["name"] for source in planned.json["result"]["sources"]] == ["app"]
    unread = {source["source"]: source["code"] for source in planned.json["result"]["unread"]}
    assert unread == {"forbidden": "not-allowed", "missing": "gone", "media": "gone", "file": "gone"}
    assert planned.json["result"]["forecast"]["not_counted"] == [*unread]
    shown = " ".join(call("plan", "-c", case, "--deadline", "30h").out.split())
    assert "UNKNOWN: deadline" in shown
    assert "not counted: forbidden, missing, media, file" in shown
    assert "All that was counted has left by" in shown

    exported = call("export", "-c", case, "--json")
    assert exported.code == 3, exported.err
    result = exported.json["result"]
    assert [source["items"] for source in result["sources"]] == [2500, 0, 0, 0, 0]
    assert {source["source"]: source["code"] for source in result["broken"]} == unread
    lines = {line["source"]: line for line in result["summary"]}
    assert lines["app"]["happened"].startswith("exported: 2,500 items")
    assert f"there is no bucket '{bucket}'" in lines["media"]["happened"]
    assert all(line["next_step"] for name, line in lines.items() if name != "app")
    assert "create" not in lines["media"]["next_step"], "a source that is missing is not to be made"
    shown = call("export", "-c", case).out
    assert "app        exported: 2,500 items" in shown
    assert f"missing    not exported: {postgres.url_of(f'missing_{word}')}" in shown

    postgres.execute(f"GRANT CONNECT ON DATABASE {forbidden} TO stranger_{word}")
    postgres.database(f"missing_{word}")
    postgres.execute("CREATE TABLE t AS SELECT 1 AS x", f"missing_{word}")
    client = boto_client(minio.profile)
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="k", Body=b"v")
    make_file(tmp_path / "file.db")
    completed = call("export", "-c", case, "--json")
    assert completed.code == 0, completed.err
    assert [source["items"] for source in completed.json["result"]["sources"]] == [2500, 1, 1, 1, 1]


@pytest.mark.parametrize("command", ["plan", "export"])
def test_where_no_source_answers_nothing_is_written(tmp_path, command):
    """The code is the worst one, and the location may be used for something else."""
    closed = f"postgresql://me@127.0.0.1:{free_port()}/x"
    bundle = tmp_path / "bundle"
    words = ["--to", bundle] if command == "export" else []
    ended = call(command, f"a={closed}", *words)
    assert (ended.code, bundle.exists(), ended.err.count("onnection refused")) == (5, False, 1), ended.err
    ended = call(command, f"a={closed}", f"b=sqlite://{tmp_path}/none.db", *words)
    assert ended.err.count("    → check ") == 2, ended.err
    ended = call(command, f"a={closed}", f"b=sqlite://{tmp_path}/none.db", *words, "--json")
    assert (ended.code, ended.json["error"]["code"], bundle.exists()) == (7, "gone", False)
    assert all(word in ended.json["error"]["message"] for word in ("a: postgresql://", "b: ", "none.db"))


def test_a_run_explains_a_dead_server_once_however_many_of_its_databases_it_names(tmp_path):
    make_file(tmp_path / "file.db")
    dead = f"postgresql://me@127.0.0.1:{free_port()}"
    case = tmp_path / "moveout.toml"
    case.write_text(
        f'[bundle]\nlocation = "{tmp_path}/bundle"\n'
        f'[[source]]\nname = "file"\nurl = "sqlite://{tmp_path}/file.db"\n'
        + "".join(f'[[source]]\nname = "{name}"\nurl = "{dead}/{name}"\n' for name in ("a", "b"))
        + f'[[destination]]\nsource = "file"\nurl = "sqlite://{tmp_path}/new.db"\n'
    )
    ended = call("run", "-c", case)
    assert ended.code == 3, ended.err
    steps, summary = ended.out.split("summary ──")
    assert (steps + ended.err).count("onnection refused") == summary.count("onnection refused") == 1
    assert "source a, source b" in steps
    assert steps.count("check host, port and network") == summary.count("check host, port and network") == 1
    assert f"not exported: {dead}/b: not reachable (see doctor above)" in steps
    assert "not exported, for the same reason as a" in summary
    assert f"b cannot be opened: {dead}/b: not reachable (see doctor above)" in ended.err
    in_json = call("run", "-c", case, "--json").json["result"]
    assert "onnection refused" in str(in_json["summary"])


def test_a_run_whose_servers_are_all_dead_explains_them_once_and_each_line_names_its_own(tmp_path):
    dead = f"postgresql://me@127.0.0.1:{free_port()}"
    case = tmp_path / "moveout.toml"
    case.write_text(
        f'[bundle]\nlocation = "{tmp_path}/bundle"\n'
        + "".join(f'[[source]]\nname = "{name}"\nurl = "{dead}/{name}"\n' for name in ("a", "b"))
    )
    ended = call("run", "-c", case)
    steps, summary = ended.out.split("summary ──")
    assert (ended.code, (steps + ended.err).count("onnection refused")) == (5, 1), ended
    assert summary.count("onnection refused") == 1
    assert f"the export stopped: {dead}/a: connection to server" in summary
    assert "the export stopped, for the same reason as a" in summary
