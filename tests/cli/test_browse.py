"""Single objects and rows out of a bundle, without fetching the rest."""

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporters.objects import source_summary
from exporters.sql.columns import KIND
from migrate.browse import single_objects, table_rows
from migrate.browse.single_objects import ObjectQuery
from migrate.bundle.catalog import CatalogRow
from migrate.bundle.commit_records import FileRecord
from migrate.bundle.reader import BundleReader, hash_file
from migrate.errors import DamageError
from migrate.storage.registry import open_location
from tests.cli.conftest import call, run
from tests.tools.clients import boto_client

KEYS = {"photos/1.jpg": b"one", "photos/2.jpg": b"two" * 1000, "notes.txt": b"", "big": bytes(9 << 20)}

LONG = "\u3042" * 85
"""As long as the name of a file may be: 255 bytes."""


@pytest.fixture(scope="module")
def location(minio, make_bucket, tmp_path_factory):
    """A bundle of a bucket and a database file; the index has very small groups of rows."""
    folder = tmp_path_factory.mktemp("browse")
    name = make_bucket(minio)
    client = boto_client(minio.profile)
    for key, body in KEYS.items():
        client.put_object(Bucket=name, Key=key, Body=body, Metadata={"who": "me"})
    db = sqlite3.connect(folder / "app.db")
    db.execute("CREATE TABLE line (id INTEGER PRIMARY KEY, name TEXT, price REAL, raw BLOB)")
    rows = ((n, f"name {n}", n / 4, bytes([n % 256])) for n in range(1000))
    db.executemany("INSERT INTO line VALUES (?, ?, ?, ?)", rows)
    db.commit()
    db.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_summary, "_GROUP_ROWS", 2)
        words = (f"shop=s3://{name}?profile={minio.profile}", f"app=sqlite://{folder}/app.db")
        ended = call("export", *words, "--to", folder / "bundle")
    assert ended.code == 0, ended.err
    return folder / "bundle"


class Counting:
    """A store that counts what is read of it."""

    def __init__(self, inner):
        self.inner = inner
        self.read_bytes = {}

    def read(self, key, start=0, length=None):
        data = self.inner.read(key, start, length)
        self.read_bytes[key] = self.read_bytes.get(key, 0) + len(data)
        return data

    def __getattr__(self, name):
        return getattr(self.inner, name)


def test_what_is_there_is_listed(location):
    listed = call("ls", location, "--json").json["result"]["entries"]
    assert {(one["source"], one["kind"]) for one in listed} == {("shop", "bucket"), ("app", "table")}
    shown = call("ls", location, "--source", "shop").out
    assert [line.split()[-1] for line in shown.splitlines()] == sorted(KEYS)
    some = call("ls", location, "photos/*", "--source", "shop", "--json").json["result"]
    assert [one["key"] for one in some["objects"]] == ["photos/1.jpg", "photos/2.jpg"]
    assert some["objects"][0]["metadata"] == {"who": "me"}
    first = call("ls", location, "--source", "shop", "--limit", 1, "--json").json["result"]
    assert (len(first["objects"]), first["more"]) == (1, True)
    assert "line" in call("ls", location, "--source", "app").out
    assert call("get", location, "line").out == call("get", location, "line", "--source", "app").out
    assert "MB  20" in call("ls", location, "big").out
    assert call("get", location, "big", "--to", "-").out
    assert call("ls", location, "li*", "--source", "app").out == call("ls", location, "--source", "app").out
    no_table = call("ls", location, "x*", "--source", "app")
    assert (no_table.code, no_table.out, "not in app: x*" in no_table.err) == (7, "", True)
    for source in ("app", "shop"):
        assert call("ls", location, source).out == call("ls", location, "--source", source).out
    assert call("ls", location, "shop", "photos/*", "--json").json["result"] == some
    assert call("get", location, "app", "line").out == call("get", location, "line").out
    for words in (("ls", location, "x"), ("get", location, "x", "--source", "shop", "--to", "-")):
        none = call(*words)
        assert (none.code, none.out, "not in shop: x\n→ moveout ls " in none.err) == (7, "", True)
    part = call("ls", location, "photos/*", "x*", "--source", "shop", "--json")
    assert (part.code, len(part.json["result"]["objects"]), part.json["result"]["missing"]) == (7, 2, ["x*"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("get {location} --source ", ["app", "shop"]),
        ("ls {location} --source sh", ["shop"]),
        ("get {location} --source app ", ["main.line"]),
        ("get {location} --source shop ", ["big", "notes.txt", "photos/"]),
        ("ls {location} --source shop photos/", ["photos/1.jpg", "photos/2.jpg"]),
        ("get {location} --source shop x", []),
        ("get {location} ", ["--source"]),
        ("get {location}/nothing --source ", []),
        ("get -c {case} --source shop p", ["photos/"]),
        ("get ", []),
        ("ls {cut} --source ", ["app", "shop"]),
        ("ls {cut} --source shop photos/", ["photos/1.jpg", "photos/2.jpg"]),
        ("ls {cut} --source = sh", ["shop"]),
    ],
)
def test_a_shell_completes_what_a_bundle_holds(location, tmp_path, words, expected):
    case = tmp_path / "moveout.toml"
    case.write_text(f'[case]\nname = "c"\n[bundle]\nlocation = "{location}"\n')
    cut = f"file : //{location}"  # as bash cuts file:///…
    line = "moveout " + words.format(location=location, case=case, cut=cut)
    asked = {
        "COMP_WORDS": line.replace(" ", "\n"),
        "COMP_CWORD": str(line.count(" ")),
        "_MOVEOUT_COMPLETE": "complete_bash",
    }
    assert call(env=asked).out.split() == expected


def test_a_bundle_of_nothing_is_listed(tmp_path):
    with closing(sqlite3.connect(tmp_path / "app.db")) as made:
        made.execute("VACUUM")
    assert (
        call("export", f"app=sqlite://{tmp_path}/app.db", "--to", tmp_path / "bundle", "--allow-empty").code
        == 0
    )
    listed = call("ls", tmp_path / "bundle")
    assert (listed.code, listed.out) == (0, "")


def test_keys_that_a_disk_takes_for_one_are_two_files(location, tmp_path, monkeypatch):
    """Disks of Macs and of Windows do not tell A from a. The second one ended the command, wherever it was to write."""
    monkeypatch.setattr(single_objects, "member_name", lambda *_: "one-name")
    keys = ("photos/1.jpg", "photos/2.jpg")
    for words in (keys, keys, ("photos/1.jpg", "photos/2*")):
        ended = call("get", location, *words, "--source", "shop", "--to", tmp_path, "--json")
        assert ended.code == 0, ended.err
        files = ended.json["result"]["files"]
        assert [Path(files[key]).read_bytes() for key in keys] == [KEYS[key] for key in keys]


def test_objects_are_fetched_by_their_own_bytes(location, tmp_path):
    ended = call("get", location, "photos/2.jpg", "big", "--source", "shop", "--to", tmp_path, "--json")
    assert ended.code == 0, ended.err
    assert ended.json["result"]["files"]["big"] == str(tmp_path / "big")
    for key in ("photos/2.jpg", "big"):
        written = hashlib.sha256((tmp_path / key).read_bytes())
        assert written.digest() == hashlib.sha256(KEYS[key]).digest()
    again = call("get", location, "big", "--source", "shop", "--to", tmp_path)
    assert (again.code, again.out.splitlines()[-1]) == (
        0,
        "1 object, 9.44 MB, checked by SHA-256; 1 there already",
    )
    (tmp_path / "big").write_bytes(b"mine")
    refused = call("get", location, "big", "--source", "shop", "--to", tmp_path)
    assert (refused.code, "exists already" in refused.err, (tmp_path / "big").read_bytes()) == (
        2,
        True,
        b"mine",
    )
    missing = call("get", location, "photos/9.jpg", "--source", "shop", "--to", tmp_path)
    assert (missing.code, "photos/9.jpg" in missing.err) == (7, True)
    assert "→ moveout ls " in missing.err, missing.err
    straight = run("get", location, "photos/1.jpg", "--source", "shop", "--to", "-")
    assert (straight.code, straight.out) == (0, "one")


def test_patterns_whole_sources_and_odd_keys_are_fetched(minio, bucket, tmp_path):
    client = boto_client(minio.profile)
    for key in ("-dash", "a[1].txt", "photos/x.jpg", "photos/deep/y.jpg", LONG):
        client.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for number in range(30):
        client.put_object(Bucket=bucket, Key=f"many/\x1b{number}", Body=b"")
    bundle = tmp_path / "bundle"
    assert call("export", f"media=s3://{bucket}?profile={minio.profile}", "--to", bundle).code == 0

    def get(directory, *words):
        ended = call("get", bundle, "--to", tmp_path / directory, "--json", *words)
        return ended.code, sorted(ended.json["result"]["files"]), ended.json["result"]["missing"]

    assert get("pattern", "photos/x.jpg", "photos/**") == (0, ["photos/deep/y.jpg", "photos/x.jpg"], [])
    assert get("literal", "a[1].txt", "--", "-dash") == (0, ["-dash", "a[1].txt"], [])
    assert get("none", "videos/**", "-q") == (7, [], ["videos/**"])
    code, names, missing = get("all")
    assert (code, len(names), missing) == (0, 35, [])
    shown = call("get", bundle, "many/**", "--to", tmp_path / "many").out
    assert ("\x1b" in shown, shown.splitlines()[-2:]) == (
        False,
        ["and 10 more (all with --json)", "30 objects, 0 B, checked by SHA-256"],
    )
    assert (tmp_path / "all" / LONG).read_text() == LONG
    assert (tmp_path / "all/photos/deep/y.jpg").read_text() == "photos/deep/y.jpg"
    assert call("get", bundle).code == 2


def test_tables_that_match_are_written_each_into_a_file(location, tmp_path):
    ended = call("get", location, "l*", "--source", "app", "--to", tmp_path / "tables", "--rows", "0:3")
    assert ended.code == 0, ended.err
    assert [path.name for path in (tmp_path / "tables").iterdir()] == ["line.jsonl"]
    assert call("get", location, "z*", "--source", "app", "--to", tmp_path / "none").code == 7


def test_tables_of_one_name_and_of_odd_names_are_written_each_into_a_file(postgres, tmp_path):
    url, bundle, to = postgres.database(), tmp_path / "bundle", tmp_path / "to"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA other")
        for name in ("public.t", "other.t", '"../../up"'):
            connection.execute(f"CREATE TABLE {name} (name text)")
            connection.execute(f"INSERT INTO {name} VALUES ($${name}$$)")
    assert call("export", f"app={url}", "--to", bundle).code == 0
    for kept in ("", "; 3 there already"):
        ended = call("get", bundle, "--to", to)
        assert (ended.code, ended.out.splitlines()[-1].endswith(kept)) == (0, True), ended
    files = call("get", bundle, "--to", to, "--json").json["result"]["files"]
    assert {Path(path).parent for path in files.values()} == {to, to / "_keys"}
    rows = {name: json.loads(Path(path).read_text())["name"] for name, path in files.items()}
    assert rows == {"other.t": "other.t", "public.t": "public.t", "public.../../up": '"../../up"'}


def test_single_precision_is_shown_with_its_own_digits(postgres, tmp_path):
    url = postgres.database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TYPE pair AS (x real, y float8)")
        connection.execute(
            "CREATE TABLE t AS SELECT 1e-40::real AS a, '{0.1,NULL,NaN}'::real[] AS b, ROW(0.1, 0.3)::pair AS c"
        )
    assert call("export", f"app={url}", "--to", tmp_path / "bundle").code == 0
    ended = call("get", tmp_path / "bundle", "t", "--source", "app")
    assert ended.out.splitlines() == ['{"a": 1e-40, "b": [0.1, null, "nan"], "c": {"x": 0.1, "y": 0.3}}']


def test_with_a_key_the_custody_log_says_that_something_was_fetched(location, tmp_path):
    key = tmp_path / "me"
    assert call("keys", "init", key).code == 0
    assert (
        call("get", location, "big", "nothing", "--source", "shop", "--to", tmp_path, "--key", key).code == 7
    )
    assert call("get", location, "line", "--source", "app", "--rows", "3:5", "--key", key).code == 0
    entries = call("custody", "show", location, "--json").json["result"]["entries"]
    assert [(one["event"], one["details"]) for one in entries] == [
        ("fetched", {"source": "shop", "objects": 1}),
        ("fetched", {"source": "app", "table": "line", "rows": "3:5"}),
    ]


def test_only_what_matters_is_read(location):
    store = Counting(open_location(str(location)))
    reader = BundleReader(store)
    wanted = ObjectQuery(keys={"photos/1.jpg"})
    assert [len(table) for table in single_objects._groups(reader, "shop", wanted, "")] == [2]
    assert [
        len(table) for table in single_objects._groups(reader, "shop", ObjectQuery(globs=("z/*",)), "")
    ] == []
    store.read_bytes.clear()
    [row] = single_objects.find(reader, "shop", wanted)
    with Path("/dev/null").open("wb") as hole:
        single_objects.copy(store, row, hole)
    assert store.read_bytes[row.file] == 3
    assert not [key for key in store.read_bytes if "/large/" in key or "/tables/" in key]


def test_damage_is_told_and_leaves_nothing(location, tmp_path):
    [row] = single_objects.find(
        BundleReader(open_location(str(location))), "shop", ObjectQuery(keys={"photos/2.jpg"})
    )
    pack = location / row.file
    whole = pack.read_bytes()
    damaged = bytearray(whole)
    damaged[row.offset + 5] ^= 1
    try:
        pack.write_bytes(damaged)
        ended = call("get", location, "photos/2.jpg", "--source", "shop", "--to", tmp_path)
    finally:
        pack.write_bytes(whole)
    assert ended.code == 6
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_rows_of_a_table_by_their_numbers(location, tmp_path):
    some = call("get", location, "line", "--source", "app", "--rows", "3:5", "--json").json["result"]["rows"]
    assert some == [
        {"id": 3, "name": "name 3", "price": 0.75, "raw": "Aw=="},
        {"id": 4, "name": "name 4", "price": 1.0, "raw": "BA=="},
    ]
    assert len(call("get", location, "main.line", "--source", "app", "--rows", "998:").out.splitlines()) == 2
    assert call("get", location, "line", "--source", "app", "--rows", "a-b").code == 2
    assert call("get", location, "lines", "--source", "app").code == 7
    assert call("get", location, "line", "--source", "app", "--to", tmp_path).code == 0
    assert len((tmp_path / "line.jsonl").read_text().splitlines()) == 1000


def test_rows_of_a_damaged_part_are_not_printed(location, tmp_path):
    """A page header that is damaged ends the rows without an error of Arrow's, and a value shows nothing at all."""
    [part] = (location / "data/app").rglob("*.line/*.parquet")
    whole = part.read_bytes()
    try:
        for at in (10, len(whole) // 2):
            damaged = bytearray(whole)
            damaged[at] ^= 1
            part.write_bytes(damaged)
            ended = call("get", location, "line", "--source", "app")
            assert (ended.code, ended.out, part.name in ended.err) == (6, "", True), ended
        part.write_bytes(whole[:10] + b"x" + whole[11:])
        some = call("get", location, "line", "--source", "app", "--rows", "0:9")
        assert (some.code, some.out) == (6, ""), some
        assert call("get", location, "line", "--source", "app", "--to", tmp_path).code == 6
        assert not list(tmp_path.iterdir())
    finally:
        part.write_bytes(whole)


def as_part(table: pa.Table) -> pa.Table:
    """A table whose columns have what the format says of those of a part."""
    fields = [field.with_metadata({KIND: "text"}) for field in table.schema]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields))


class Parts:
    """A bundle of one table in two parts, each in groups of three rows."""

    def __init__(self, folder: Path) -> None:
        (folder / "data/app/tables/1").mkdir(parents=True)
        for part in range(2):
            numbers = as_part(pa.table({"n": range(part * 10, part * 10 + 10)}))
            pq.write_table(numbers, folder / f"data/app/tables/1/{part}.parquet", row_group_size=3)
        self.store = open_location(str(folder))
        parts = [{"name": f"tables/1/{part}.parquet", "rows": 10} for part in range(2)]
        self.table = CatalogRow("app", "table", 1, "", "t", "tables/1", 20, 0, "", {}, {"parts": parts})

    def open(self, key):
        return BundleReader.open(self, key)

    def read(self, key):
        return self.store.read(key)

    def read_checked(self, file):
        return BundleReader.read_checked(self, file)

    def source_files(self, source, prefix):
        for info in self.store.list(f"data/{source}/{prefix}"):
            yield FileRecord(info.key, info.size_bytes, hash_file(self.store, info.key), 0)


def test_rows_are_read_group_by_group(tmp_path):
    bundle = Parts(tmp_path)
    for start, end in ((0, 20), (2, 3), (2, 4), (8, 12), (9, 10), (10, None), (19, 25), (20, 30), (5, 5)):
        numbers = [row["n"] for row in table_rows.rows(bundle, bundle.table, start, end)]
        assert numbers == list(range(20))[start:end]


def test_a_part_whose_text_is_no_text_is_damaged(tmp_path):
    bundle = Parts(tmp_path)
    _, offsets, data = pa.array([b"a\x8d\xf92"] * 10).buffers()
    text = pa.StringArray.from_buffers(10, offsets, data)
    pq.write_table(as_part(pa.table({"n": text})), tmp_path / "data/app/tables/1/1.parquet")
    assert len(list(table_rows.rows(bundle, bundle.table, 0, 10))) == 10
    with pytest.raises(DamageError, match=r"tables/1/1\.parquet"):
        list(table_rows.rows(bundle, bundle.table, 0, None))


def test_years_that_python_has_not_are_shown(tmp_path):
    bundle = Parts(tmp_path)
    days = [-719529, 0, 10_000_000, None]
    moments = [None if day is None else day * 86_400_000_000 + 1 for day in days]
    table = pa.table({"d": pa.array(days, pa.date32()), "t": pa.array(moments, pa.timestamp("us"))})
    pq.write_table(as_part(table), tmp_path / "data/app/tables/1/0.parquet")
    bundle.table.details["parts"][0]["rows"] = 4
    assert list(table_rows.rows(bundle, bundle.table, 0, 4)) == [
        {"d": "-0001-12-31", "t": "-0001-12-31T00:00:00.000001"},
        {"d": "1970-01-01", "t": "1970-01-01T00:00:00.000001"},
        {"d": "29349-01-26", "t": "29349-01-26T00:00:00.000001"},
        {"d": None, "t": None},
    ]


def test_rows_of_a_table_without_columns_are_as_many_as_were_exported(tmp_path):
    bundle = Parts(tmp_path)
    for part in range(2):
        pq.write_table(pa.table({}), tmp_path / f"data/app/tables/1/{part}.parquet")
    assert list(table_rows.rows(bundle, bundle.table, 1, 5)) == [{}] * 4
    assert list(table_rows.rows(bundle, bundle.table, 5, 12)) == [{}] * 7
