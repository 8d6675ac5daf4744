"""A whole move by the command line, as one case."""

import subprocess
from datetime import UTC, datetime

import msgspec
import psycopg
import pytest

from migrate.cli.common.summary_lines import SummaryLine
from migrate.cli.common.terminal import ErrorWords
from migrate.cli.moves.move_summary import MoveSummary
from tests.cli.conftest import KEYS, call, make_media, make_shop, run
from tests.tools.clients import boto_client

CASE = """
[case]
name = "shop"
deadline = 2099-01-01T00:00:00Z
[[source]]
name = "app"
url = "{app}"
[[source]]
name = "media"
url = "{media}"
[bundle]
location = "bundle"
[transfer]
location = "s3://{evacuated}/shop?profile={profile}"
[[destination]]
source = "app"
url = "{new_app}"
[[destination]]
source = "media"
url = "s3://{new_media}?profile={profile}"
"""


@pytest.fixture(scope="module")
def make_case(postgres, minio, other_postgres, other_minio, make_bucket):
    """Make a database and a bucket, and a case file in a directory by which they move."""

    def make(directory):
        path = directory / "moveout.toml"
        path.write_text(
            CASE.format(
                app=make_shop(postgres),
                media=make_media(minio, make_bucket(minio)),
                new_app=other_postgres.database(),
                evacuated=make_bucket(other_minio),
                new_media=make_bucket(other_minio),
                profile=other_minio.profile,
            )
        )
        return path

    return make


@pytest.fixture(scope="module")
def moved(make_case, tmp_path_factory):
    """A case, and what the command said that moved it as a process of its own."""
    case = make_case(tmp_path_factory.mktemp("moved"))
    return case, run("run", "-c", case, "--json")


def test_run_moves_everything_and_a_second_run_moves_nothing(moved):
    case, first = moved
    assert first.code == 0, first.err
    steps = {step["step"]: step["result"] for step in first.json["result"]["steps"]}
    assert list(steps) == ["doctor", "plan", "export", "transfer", "verify", "restore", "compare"]
    assert steps["transfer"]["bytes_moved"] > 16 * 2**20
    assert [(one["source"], one["findings"]) for one in steps["compare"]["compared"]] == [("media", [])]

    second = call("run", "-c", case, "--json")
    assert second.code == 0, second.err
    steps = {step["step"]: step["result"] for step in second.json["result"]["steps"]}
    assert steps["export"] is None
    assert steps["transfer"] is None
    assert all(one["items"] == one["skipped_items"] for one in steps["restore"]["restored"])


def test_a_bucket_that_is_synced_since_is_not_restored_again(tmp_path, minio, other_minio, make_bucket):
    """What the sync has put there is no stranger's: the run took the bucket for one in use, and stopped."""
    old, new, case = make_bucket(minio), make_bucket(other_minio), tmp_path / "moveout.toml"
    client = boto_client(minio.profile)
    client.put_object(Bucket=old, Key="a", Body=b"1")
    case.write_text(
        f"""[case]
name = "media"
[[source]]
name = "media"
url = "s3://{old}?profile={minio.profile}"
[bundle]
location = "bundle"
[[destination]]
source = "media"
url = "s3://{new}?profile={other_minio.profile}"
"""
    )
    assert call("run", "-c", case).code == 0
    for key in ("a", "b"):
        client.put_object(Bucket=old, Key=key, Body=b"22")
    assert call("sync", "-c", case, "--overwrite").code == 0
    again = call("run", "-c", case)
    assert (again.code, "Up on the new host: media." in again.out) == (0, True), again
    assert boto_client(other_minio.profile).get_object(Bucket=new, Key="a")["Body"].read() == b"22"


def test_what_arrives_is_what_left(moved):
    text = moved[0].read_text()
    old, new = (line.split('"')[1] for line in text.splitlines() if line.startswith('url = "postgresql'))
    for query in (
        "SELECT * FROM customers ORDER BY id",
        "SELECT id, placed::text, note FROM orders ORDER BY id",
    ):
        with psycopg.connect(old) as left, psycopg.connect(new) as right:
            assert left.execute(query).fetchall() == right.execute(query).fetchall()
    url = [line.split('"')[1] for line in text.splitlines() if line.startswith('url = "s3')][1]
    name, _, profile = url.removeprefix("s3://").partition("?profile=")
    client = boto_client(profile)
    for number, key in enumerate(KEYS):
        response = client.get_object(Bucket=name, Key=key)
        assert response["Body"].read() == (b"" if key == "empty" else key.encode() * (number + 1))
        assert (response["ContentType"], response["Metadata"]) == ("text/x-odd", {"owner": "plaza"})
        assert client.get_object_tagging(Bucket=name, Key=key)["TagSet"] == [{"Key": "kind", "Value": "test"}]


def test_the_verbs_one_by_one_with_locations_and_pairs(
    tmp_path, shop, media, other_minio, make_bucket, other_postgres
):
    bundle, destination = (
        tmp_path / "bundle",
        f"s3://{make_bucket(other_minio)}/b?profile={other_minio.profile}",
    )
    planned = call("plan", f"app={shop}", f"media={media}", "--deadline", "30h", "--json")
    assert planned.json["result"]["forecast"]["verdict"] == "in time", planned.err
    assert planned.json["result"]["sources"][1]["items"] == 5

    exported = call("export", f"app={shop}", f"media={media}", "--to", bundle, "--json")
    assert exported.json["result"]["complete"], exported.err
    assert {one["name"]: one["items"] for one in exported.json["result"]["sources"]} == {
        "app": 2500,
        "media": 5,
    }
    subprocess.run(["sha256sum", "--quiet", "-c", "manifest-sha256.txt"], cwd=bundle, check=True)

    assert call("transfer", bundle, destination, "-q").code == 0
    assert "complete" in call("status", destination).out
    assert "whole" in call("verify", destination, "--level", "full").out
    new = other_postgres.database()
    restored = call("restore", destination, f"app={new}", "--json")
    assert restored.json["result"]["restored"][0]["items"] == 2500, restored.err
    assert call("verify", destination, "--against", f"app={new}").code == 0


def test_a_difference_in_the_live_database_is_a_finding(tmp_path, shop):
    bundle = tmp_path / "bundle"
    assert call("export", f"app={shop}", "--to", bundle, "-q").code == 0
    with psycopg.connect(shop) as connection:
        connection.execute("UPDATE customers SET balance = balance + 0.01 WHERE id = 7")
    found = call("verify", bundle, "--against", f"app={shop}", "--json")
    assert found.code == 6
    assert "customers" in found.json["result"]["compared"][0]["findings"][0]["key"]


def test_progress_without_a_terminal_is_plain_lines_on_stderr(tmp_path, shop):
    done = call("export", f"app={shop}", "--to", tmp_path / "bundle", "--json")
    assert done.out.count("\n") == 1
    assert "export app  100%" in done.err
    assert "\x1b" not in done.err


def test_an_export_whose_source_is_gone_by_now_is_still_known_to_be_done(tmp_path, postgres, shop):
    bundle = tmp_path / "bundle"
    assert call("export", f"app={shop}", "--to", bundle, "-q").code == 0
    name = shop.rpartition("/")[2]
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name}")
    again = call("export", f"app={shop}", "--to", bundle, "--json")
    assert (again.code, again.json["result"]["already_sealed"]) == (0, True)


def test_run_takes_what_can_be_had_and_says_what_is_missing(make_case, tmp_path):
    """A table that may not be read is a gap: the rest leaves all the same, and the exit code tells."""
    case = make_case(tmp_path)
    url = next(
        line.split('"')[1] for line in case.read_text().splitlines() if line.startswith('url = "postgresql')
    )
    with psycopg.connect(url) as connection:
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute("CREATE ROLE reader LOGIN PASSWORD 'reader'")
        connection.execute("GRANT SELECT ON customers, customers_id_seq TO reader")
    text = case.read_text().replace("postgres@127", "reader@127", 1)
    case.write_text(text[: text.index("[[destination]]")])
    done = call("run", "-c", case, "--json", env={"PGPASSWORD": "reader", "PGPASSFILE": "/dev/null"})
    steps = {step["step"]: step for step in done.json["result"]["steps"]}
    assert done.code == 3, done.err
    assert not steps["export"]["result"]["complete"]
    assert any(
        "orders" in gap["item"] for source in steps["export"]["result"]["sources"] for gap in source["gaps"]
    )
    assert steps["transfer"]["exit_code"] == 3


def test_what_was_switched_is_not_called_compared_again():
    """What a cutover has switched is written to, so the bundle is not compared with it."""
    lines = {name: SummaryLine(name, "yes", "") for name in ("app", "media")}
    now = datetime.now(UTC)
    for compared, sentence in ((["media"], "run."), (["app", "media"], "run, and was compared again ")):
        expected = {stage: list(lines) for stage in ("exported", "verified", "restored")} | {
            "compared": compared
        }
        moved = MoveSummary(
            list(lines),
            expected,
            dict.fromkeys(expected, lines),
            deadline=now,
            out_at=now,
            up_at=now,
            was_up_before=True,
        )
        sentences = [*moved.sentences(ErrorWords())]
        assert sentences[-1].startswith(f"Everything was up before this {sentence}")
        ahead = "Later changes were applied to app: not compared with the bundle any more."
        assert (ahead in sentences) is (len(compared) == 1)
        failed = msgspec.structs.replace(moved, stages={}, was_up_before=False)
        nothing = "Nothing else was compared." if len(compared) == 1 else "Nothing was compared."
        assert nothing in [*failed.sentences(ErrorWords())]
