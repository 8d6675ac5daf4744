"""``moveout sync`` as people and scripts meet it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from migrate.storage.s3.source_bucket import open_bucket
from scripts.metrics import received_bytes
from scripts.servers import S3Server
from tests.cli.conftest import call
from tests.exporters.objects.conftest import MakeShop, Shop, fill
from tests.exporters.objects.histories import make_history
from tests.exporters.objects.test_history import make_old_shop
from tests.sync.conftest import Move
from tests.sync.test_history import history
from tests.tools.clients import boto_client
from tests.tools.pages import assert_harmless, parse
from tests.torture.command import moveout


def words(move: Move) -> tuple[str, str]:
    return f"old={move.source.url}", f"new={move.destination.url}"


def told(*arguments: str) -> tuple[int, dict]:
    done = call("sync", *arguments, "--json", "--quiet")
    return done.code, done.json


def test_what_it_says(move: Move) -> None:
    """Counts, gaps and codes in JSON; a page that is safe to open, whatever the keys are called."""
    fill(move.source)
    move.source.put("<script>alert(1)</script>", b"x")
    move.destination.put("<script>alert(1)</script>", b"another")
    code, first = told(*words(move))
    assert (code, first["exit_code"], first["result"]["failed"]) == (3, 3, 1)
    code, again = told(*words(move), "--overwrite", "--cutover")
    result = again["result"]
    assert (code, result["copied"], result["same"]) == (0, 1, result["listed"] - 1)
    assert result["proof"]["objects"] == result["listed"]
    page = parse(move.location().read("REPORT.html"))
    assert_harmless(page)
    assert "Both sides were equal" in page.text
    assert "every object has the time at which it was copied" in page.text


def test_a_proof_is_signed_and_a_bucket_with_versions_keeps_none_of_the_record(
    move: Move, tmp_path: Path
) -> None:
    move.destination.boto.put_bucket_versioning(
        Bucket=move.destination.name, VersioningConfiguration={"Status": "Enabled"}
    )
    move.source.put("a")
    key = tmp_path / "key"
    assert call("keys", "init", key, "--name", "acme").code == 0
    code, output = told(*words(move), "--cutover", "--key", str(key))
    assert (code, output["result"]["proof"]["objects"]) == (0, 1)
    store = move.location()
    (signature,) = [info.key for info in store.list("sig/")]
    (tmp_path / "sig").write_bytes(store.read(signature))
    argv = ["ssh-keygen", "-Y", "check-novalidate", "-n", "moveout-document", "-s", tmp_path / "sig"]
    assert (
        subprocess.run(argv, input=store.read("cutover.json"), check=False, capture_output=True).returncode
        == 0
    )
    rows = move.destination.boto.list_object_versions(Bucket=move.destination.name, Prefix=".moveout-sync/")
    assert all(one["IsLatest"] for one in rows["Versions"])
    assert "DeleteMarkers" not in rows


def test_a_history_and_its_page(minio: S3Server, other_minio: S3Server) -> None:
    """The words are about versions; the page says that all of them are meant."""
    move = Move(make_old_shop(minio), make_old_shop(other_minio, lock=False))
    for body in (b"one", b"two"):
        move.source.put("a", body)
    result = call("sync", *words(move), "--history", "--cutover")
    assert result.code == 0
    assert "2 versions copied" in result.out
    assert "2 versions" in result.out.split("Equal at")[1]
    assert "do not show tags, ACLs and locks: --recheck" in " ".join(result.out.split())
    page = parse(move.location().read("REPORT.html"))
    assert_harmless(page)
    assert "with all versions" in page.text
    code, error = told(*words(move))
    assert (code, "--history" in error["error"]["next"]) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [("a=s3://x",), ("a=s3://x", "b=postgresql://h/d"), ("a=s3://x", "b=s3://y", "c=s3://z")],
)
def test_wrong_words(arguments: tuple[str, ...]) -> None:
    code, output = told(*arguments)
    assert (code, output["error"]["code"]) == (2, "usage")
    assert output["error"]["next"]


def test_a_bucket_into_itself(move: Move) -> None:
    code, output = told(
        f"a={move.source.url}", f"b=s3://{move.source.name}/sub?profile={move.source.server.profile}"
    )
    assert (code, "overlap" in output["error"]["message"]) == (2, True)


@pytest.mark.torture
@pytest.mark.parametrize("number", range(6))
def test_a_history_is_killed_at_any_moment(minio: S3Server, other_minio: S3Server, number: int) -> None:
    """SIGKILL in the middle of keys, new versions meanwhile, then the same command: every version once."""
    move = Move(make_old_shop(minio), make_old_shop(other_minio))
    make_history(move.source, keys=400, versions=8, seed=number)
    move.source.put("large", bytes(range(256)) * 300_000)
    move.source.put("large", bytes(range(256)) * 300_001)
    for turn in range(3):
        killed = moveout("sync", *words(move), "--history", kill_after=1.5 + number * 0.4 + turn * 0.7)
        assert killed.code in {0, -9}, killed.said
        move.source.put(f"user-1/00{turn}01.bin", b"later")
        move.source.boto.delete_object(Bucket=move.source.name, Key=f"user-2/00{turn}02.bin")
    listed = open_bucket(move.source.url).list_versions()
    count = sum(1 for _ in listed)
    done = moveout("sync", *words(move), "--history", "--cutover")
    assert done.code == 0, done.said
    destination = contents(move.destination)
    assert destination == contents(move.source)
    assert sum(map(len, destination.values())) == count


def contents(shop: Shop) -> dict[str, list[tuple[Any, ...]]]:
    """What each key has been, without ETags: what is sent in parts gets another one."""
    return {key: [row[:3] + row[4:] for row in rows] for key, rows in history(shop).items()}


@pytest.fixture(scope="module")
def bodies() -> dict[str, bytes]:
    """3,000 small objects, and a large one."""
    sizes = [(n * 7919) % 60_000 for n in range(3000)]
    small = {f"k/{n:05d}": n.to_bytes(2, "big") * (size // 2) for n, size in enumerate(sizes)}
    return small | {"large": bytes(range(256)) * 400_000}


@pytest.fixture(scope="module")
def many(minio: S3Server, make_bucket: Callable[[S3Server], str], bodies: dict[str, bytes]) -> Shop:
    """A bucket of them, which no sync changes."""
    shop = Shop(minio, make_bucket(minio), boto_client(minio.profile))
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(shop.put, *zip(*bodies.items(), strict=True)):
            pass
    return shop


@pytest.mark.torture
@pytest.mark.parametrize("number", range(8))
def test_killed_at_any_moment(
    many: Shop, bodies: dict[str, bytes], other_minio: S3Server, make_shop: MakeShop, number: int
) -> None:
    """SIGKILL, then the same command: everything is there, and what was committed is not sent again."""
    move = Move(many, make_shop(other_minio))
    killed = moveout("sync", *words(move), kill_after=1.5 + number * 0.9)
    assert killed.code in {0, -9}, killed.said
    before = received_bytes(move.destination.server.endpoint)
    there = sum(len(bodies[key]) for key in move.destination.keys() if key in bodies)  # noqa: SIM118
    done = moveout("sync", *words(move), "--cutover")
    assert done.code == 0, done.said
    sent = received_bytes(move.destination.server.endpoint) - before
    assert sent <= sum(map(len, bodies.values())) - there + 64 * 2**20
    assert move.contents(move.destination) == bodies


def test_objects_that_lie_among_the_records_of_syncs_are_named(move: Move) -> None:
    """Those of the record of an earlier sync into the source are not."""
    for key in ("a", ".moveout-sync/notes.txt", f".moveout-sync/{'0' * 16}/sync.json"):
        move.source.put(key)
    done = call("sync", *words(move))
    assert (done.code, done.out.count(".moveout-sync/notes.txt")) == (0, 1), done
    assert f"{'0' * 16}/sync.json" not in done.out
    code, output = told(*words(move))
    assert [gap["item"] for gap in output["result"]["gaps"]] == [".moveout-sync/notes.txt"]
    assert (code, output["result"]["excluded"]) == (0, 2)
