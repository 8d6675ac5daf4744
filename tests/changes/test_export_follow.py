"""An export that is followed: its snapshot and the segments together have each transaction exactly once."""

import re
import subprocess
import time

import pyarrow.parquet as pq
import pytest

from exporters.changes import FOLLOW, MessageKind
from exporters.postgres.changes import pgoutput
from exporters.postgres.changes.log import open_change_log
from migrate.bundle.reader import BundleReader
from migrate.changes.capture import Capture, resume_position
from migrate.changes.segments import SegmentFolder, SegmentReader
from migrate.runtime.cancellation import CancellationToken
from migrate.storage.registry import open_location
from tests.changes.writers import writers
from tests.cli.conftest import MOVEOUT, call, result, run
from tests.exporters.postgres.databases import fetch, run_sql
from tests.tools.waiting import stream_of

ACCOUNTS = """
CREATE TABLE log (writer int, number int, note text, PRIMARY KEY (writer, number));
INSERT INTO log SELECT 0, g, md5(g::text) || md5('b' || g) FROM generate_series(1, 5000) g;
CREATE TABLE keyless (a int);
CREATE PUBLICATION theirs FOR TABLE log;
"""


def capture_rest(location, url):
    """Capture what the log still has; return the bundle and the folder of segments."""
    store = open_location(str(location))
    reader = BundleReader(store)
    base = reader.newest_position("app")[FOLLOW]
    folder = SegmentFolder(store, "app", base["position"])
    log = open_change_log(url, {}, base["name"])
    end = log.state(base["log"]).end
    with stream_of(log, base["log"], resume_position(folder, base["position"])) as stream:
        Capture(folder).run(stream, CancellationToken(), until=lambda position: position >= end)
    return reader, folder


def bases_of(bundle):
    """The folders of bases that have begun. A kill within the first file leaves an empty directory."""
    return {path.parent for path in bundle.glob("changes/app/*/idle")}


def rows_of_bundle(reader, name):
    row = next(row for row in reader.catalog() if row.name == name)
    rows = []
    for part in row.details["parts"]:
        table = pq.read_table(reader.open(f"data/app/{part['name']}"), columns=["writer", "number"])
        rows += zip(*(column.to_pylist() for column in table.columns), strict=True)
    return rows


def inserted_rows(folder):
    """The rows that segments insert, as they come back; a transaction has to be whole."""
    rows, inside = [], False
    for stored in SegmentReader(folder).read():
        kind = stored.message.kind
        if kind in {MessageKind.BEGIN, MessageKind.COMMIT}:
            assert inside is (kind is MessageKind.COMMIT)
            inside = not inside
        elif kind is MessageKind.CHANGE:
            assert inside
            new = pgoutput.decode(stored.message.payload).new
            rows.append((int(new[0]), int(new[1])))
    assert not inside
    return rows


def drop_slots(url):
    database = url.rpartition("/")[2]
    fetch(
        url,
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
        f" WHERE database = '{database}' AND NOT active",
    )


@pytest.fixture
def url(postgres):
    url = postgres.database()
    run_sql(url, ACCOUNTS)
    yield url
    drop_slots(url)


@pytest.mark.torture
def test_bundle_and_segments_have_each_transaction_once(url, tmp_path):
    """Writers commit all the time. The first export is killed, the second goes on; no command trips over segments."""
    bundle = tmp_path / "bundle"
    words = ["export", f"app={url}", "--follow", "--to", bundle]
    with writers(url) as written:
        killed = subprocess.Popen([MOVEOUT, *map(str, words)], stderr=subprocess.PIPE)
        while killed.poll() is None and not bases_of(bundle):
            time.sleep(0.01)
        assert not (bundle / "tagmanifest-sha256.txt").exists()
        killed.kill()
        killed.communicate()
        first_bases = bases_of(bundle)
        assert first_bases
        done = run(*words, "--bwlimit", "20K")  # which takes so long that segments are written meanwhile
        assert done.code == 0, done.err
        assert 'the changes of "public"."keyless" cannot be followed: it has no primary key' in " ".join(
            done.err.split()
        )
        assert "moveout follow takes what is written to app" in " ".join(done.out.split())
        count = len(written)
        while len(written) < count + 100:
            time.sleep(0.01)
    [base] = bases_of(bundle)
    assert base not in first_bases
    assert len(list(base.glob("*.json"))) >= 1
    reader, folder = capture_rest(bundle, url)
    definitions = (bundle / "data/app/schema/post-data.sql").read_text()
    publications = re.findall("^(?:CREATE|ALTER) PUBLICATION.*", definitions, re.MULTILINE)
    assert [statement.split()[2] for statement in publications] == ["theirs", "theirs", "theirs"]
    assert not [loss for _, loss in reader.losses() if "slot" in loss.item]
    exported, followed = rows_of_bundle(reader, "log"), inserted_rows(folder)
    assert len(exported) == len(set(exported))
    assert len(followed) == len(set(followed))
    assert set(exported).isdisjoint(followed)
    assert {row for row in {*exported, *followed} if row[0]} == set(written)
    for words in (
        ["verify", bundle, "--level", "full"],
        ["ls", bundle],
        ["export", f"app={url}", "--follow", "--to", bundle],
        ["transfer", bundle, tmp_path / "copy"],
        ["verify", tmp_path / "copy"],
        ["clean", bundle, "--dry-run"],
        ["status", bundle],
    ):
        done = call(*words)
        assert done.code == 0, (words, done.out, done.err)
        assert "changes/" not in done.out + done.err
    assert not (tmp_path / "copy" / "changes").exists()
    assert bases_of(bundle) == {base}
    check_status_and_end(url, tmp_path, base, folder.last().number)
    plain = call("export", f"app={url}", "--to", tmp_path / "plain")
    assert plain.code == 0
    late = call("export", f"app={url}", "--follow", "--to", tmp_path / "plain")
    assert (late.code, "without --follow" in late.err) == (2, True)


def check_status_and_end(url, directory, base, segments):
    """Look at what is kept, and remove it."""
    case = directory / "moveout.toml"
    source = f'[[source]]\nname = "app"\nurl = "{url}"\n'
    case.write_text(f'[case]\nname = "shop"\nfollow = true\n{source}[bundle]\nlocation = "bundle"\n')
    [followed] = result("status", "-c", case)["locations"][0]["followed"]
    assert (followed["is_read"], followed["lost"], followed["problem"]) == (False, False, "")
    assert followed["segments"] == segments
    assert 0 <= followed["lag_bytes"] <= followed["retained_bytes"] > 0
    assert (call("clean", "--changes", "-c", case, "--dry-run").code, base.exists()) == (0, True)
    done = call("clean", "--changes", "-c", case, "--yes")
    assert (done.code, list(base.glob("*"))) == (0, []), done.err
    assert fetch(url, f"SELECT 1 FROM pg_replication_slots WHERE database = '{url.rpartition('/')[2]}'") == []
    assert fetch(url, "SELECT pubname FROM pg_publication") == [("theirs",)]
    again = call("clean", "--changes", "-c", case, "--yes", "--json").json["result"]
    assert (again["removed"], len(again["absent"])) == ([], 1)
    lost = call("status", "-c", case)
    assert (lost.code, "does not exist any more" in lost.out) == (3, True)
