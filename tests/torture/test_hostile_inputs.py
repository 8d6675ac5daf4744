"""Whoever made a bundle or named a table may mean harm: each input is read safely, or refused in one sentence.

A hostile bundle has hashes that fit: it was sealed by whoever changed it. Nothing is written but what was asked for.
MOVEOUT_HOSTILE inputs of each kind (100), MOVEOUT_SEED repeats them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from migrate.browse import single_objects, table_rows
from migrate.browse.single_objects import ObjectQuery
from migrate.bundle import layout
from migrate.bundle.reader import BundleReader
from migrate.errors import MoveoutError
from migrate.runtime.progress import Silent
from migrate.storage.api import Store
from migrate.storage.checksums import crc64nvme
from migrate.verify.run import Level, verify
from tests.bundle.test_hostile import Memory, read_all, tag_manifest
from tests.cli.conftest import call, make_media
from tests.exporters.mysql.conftest import my_torture  # noqa: F401 - a fixture
from tests.exporters.postgres.conftest import torture  # noqa: F401 - a fixture
from tests.exporters.sqlite import databases as sqlite
from tests.tools.tally import count

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]

INPUTS = int(os.environ.get("MOVEOUT_HOSTILE", "100"))
RESTORED = "moveout-restored"
"""Where a restore to a server writes, by default, what it did."""
LIMIT_SECONDS = 60
"""An input that takes longer has hung the program."""
Files = dict[str, bytes]

NAMES = (
    "../../outside/up", "/tmp/moveout-hostile", "..", ".", "", " ", "-rf", "--help", "$(touch outside/up)", "`id`",
    "a;b", "'; DROP TABLE t; --", '"; DROP TABLE t; --', 'a"b', "a'b", "a`b", "a]b", "[a]", "a\\b", "a%00b", "a%2Fb",
    "a\nb", "a\rb", "a\tb", "a\x01b", "a\x7fb", "\u202eabc", "\ufeffa", "é", "e\u0301", "ß", "İ", "😀",
    "NULL", "null", "None", "select", "sqlite_", "rowid", "CON", "a" * 200, "ä" * 120, "{{7*7}}", "{0}", "%s", "=1+1",
    "<script>alert(1)</script>", "&amp;", "data/x", "_work/lease.json", "meta/bundle.json",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 7, 2**31, 2**62, 2**63 - 1, 2**70, -(2**63), 1e308, "x", "-1", [], {}, [[]], [None], {"": None},
    "a" * 100_000, "2026-13-45T99:99:99Z", "\ud800",
)  # fmt: skip
STATEMENTS = (
    b"ATTACH DATABASE 'outside/up' AS x; CREATE TABLE x.t (a);\n", b"VACUUM INTO 'outside/up';\n",
    b"PRAGMA writable_schema = ON; DELETE FROM sqlite_schema;\n", b".shell touch outside/up\n", b"DROP TABLE people;\n",
    b"SELECT load_extension('outside/up');\n", b"SELECT writefile('outside/up', 'x');\n", b"\0\n", b"\xff\xfe\n",
    b"COPY (SELECT 1) TO 'outside/up';\n", b"CREATE TRIGGER t AFTER INSERT ON people BEGIN DELETE FROM people; END;\n",
    b"  " + b"(" * 5000 + b"\n",
)  # fmt: skip


@pytest.fixture(scope="module")
def good(minio, make_bucket, tmp_path_factory) -> Files:
    """The files of a bundle with a database and a bucket."""
    folder = tmp_path_factory.mktemp("good")
    sqlite.run_sql(
        folder / "app.db",
        "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, photo BLOB, price REAL);"
        "CREATE INDEX by_name ON people (name); CREATE VIEW names AS SELECT name FROM people;"
        + "".join(f"INSERT INTO people VALUES ({n}, 'n{n}', x'00ff', {n}.5);" for n in range(50)),
    )
    media = make_media(minio, make_bucket(minio))
    words = (f"app={sqlite.url_of(folder / 'app.db')}", f"media={media}")
    ended = call("export", *words, "--to", folder / "bundle", "--quiet")
    assert ended.code == 0, ended.err
    return files_below(folder / "bundle")


def files_below(directory: Path) -> Files:
    """Return the contents of all files by their names within a directory."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def resealed(files: Files) -> Files:
    """Write lists and manifests anew, so that every hash fits."""
    records = {}
    for line in files[layout.FILES].splitlines():
        with suppress(ValueError, TypeError, KeyError):
            record = json.loads(line)
            records[record["key"]] = record
    payload = sorted(key for key in files if key.startswith(layout.DATA))
    listed, sums = [], []
    for key in payload:
        digest = hashlib.sha256(files[key]).hexdigest()
        sums_of_file = {
            "sha256": digest,
            "crc64nvme": f"{crc64nvme(files[key]):016x}",
            "size_bytes": len(files[key]),
        }
        record = {**records.get(key, {}), "key": key, **sums_of_file}
        listed.append(json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        sums.append(f"{digest}  {key}\n".encode())
    size_bytes = sum(len(files[key]) for key in payload)
    info = [line for line in files[layout.BAG_INFO].splitlines() if not line.startswith(b"Payload-Oxum")]
    files = {
        **files,
        layout.FILES: b"".join(listed),
        layout.MANIFEST: b"".join(sums),
        layout.BAG_INFO: b"\n".join([*info, f"Payload-Oxum: {size_bytes}.{len(payload)}".encode()]) + b"\n",
    }
    return {**files, layout.TAG_MANIFEST: tag_manifest(files)}


def with_json_value(value: Any, draw: random.Random) -> Any:
    """Return a copy of a JSON value with one part of it replaced."""
    inner = (
        list(value.items() if isinstance(value, dict) else enumerate(value))
        if isinstance(value, dict | list)
        else []
    )
    if not inner or draw.random() < 0.1:
        return draw.choice([*VALUES, *NAMES])
    key, part = draw.choice(inner)
    changed = dict(value) if isinstance(value, dict) else list(value)
    if isinstance(changed, dict) and draw.random() < 0.1:
        changed[draw.choice(NAMES)] = changed.pop(key)
    else:
        changed[key] = with_json_value(part, draw)
    return changed


def json_changed(files: Files, draw: random.Random) -> Files:
    """A value of a JSON file is another one."""
    key = draw.choice([key for key in sorted(files) if key.endswith(".json")])
    return resealed(
        {**files, key: json.dumps(with_json_value(json.loads(files[key]), draw)).encode() + b"\n"}
    )


def list_changed(files: Files, draw: random.Random) -> Files:
    """A line of the list of files says something else."""
    lines = files[layout.FILES].splitlines()
    at = draw.randrange(len(lines))
    lines[at] = json.dumps(with_json_value(json.loads(lines[at]), draw)).encode()
    files = {**files, layout.FILES: b"\n".join(lines) + b"\n"}
    return {**files, layout.TAG_MANIFEST: tag_manifest(files)}


def hostile_cell(kind: pa.DataType, value: Any, draw: random.Random) -> Any:
    """A value of this type that nobody expects."""
    if pa.types.is_string(kind):
        if isinstance(value, str) and value.startswith(("{", "[")) and draw.random() < 0.8:
            return json.dumps(with_json_value(json.loads(value), draw))
        return draw.choice([*NAMES, None])
    if pa.types.is_integer(kind):
        most = 2 ** (kind.bit_width - 1)
        return draw.choice([None, 0, most - 1, *([-1, -most] if pa.types.is_signed_integer(kind) else [])])
    if pa.types.is_map(kind):
        return draw.choice([None, [], [(draw.choice(NAMES), draw.choice(NAMES))]])
    return None


def parquet_changed(files: Files, draw: random.Random) -> Files:
    """A value, a column or its type is another one: in the catalog, an index, or a part of a table."""
    tables = {
        key: table
        for key in sorted(files)
        if key.endswith(".parquet") and (table := pq.read_table(io.BytesIO(files[key]))).num_columns
    }
    key = draw.choice(list(tables))
    table = tables[key]
    number = draw.randrange(table.num_columns)
    name, column = table.column_names[number], table.column(number)
    way = draw.random()
    if way < 0.6 and table.num_rows:
        at = draw.randrange(table.num_rows)
        try:
            values = column.to_pylist()
        except OverflowError:  # a year that Python has not
            values = [None] * table.num_rows
        values[at] = hostile_cell(column.type, values[at], draw)
        table = table.set_column(number, pa.field(name, column.type), pa.array(values, column.type))
    elif way < 0.7:
        table = table.drop_columns([name])
    elif way < 0.8:
        table = table.rename_columns(
            [draw.choice(NAMES) if one == name else one for one in table.column_names]
        )
    elif way < 0.9:
        table = table.set_column(
            number, name, pa.array([draw.choice([1, 2**40])] * table.num_rows, pa.int64())
        )
    else:
        table = pa.concat_tables([table, table]) if draw.random() < 0.5 else table.slice(0, 0)
    written = io.BytesIO()
    pq.write_table(table, written)
    return resealed({**files, key: written.getvalue()})


def text_changed(files: Files, draw: random.Random) -> Files:
    """A line of a script or tag file is a statement that does harm, or no text at all."""
    tags = (layout.BAGIT, layout.BAG_INFO, layout.MANIFEST)
    key = draw.choice([*(key for key in sorted(files) if key.endswith(".sql")), *tags])
    lines = files[key].splitlines(keepends=True)
    at = draw.randint(0, len(lines))
    lines[at : at + draw.randint(0, 1)] = [draw.choice(STATEMENTS)]
    changed = {**files, key: b"".join(lines)}
    return {**changed, layout.TAG_MANIFEST: tag_manifest(changed)} if key in tags else resealed(changed)


def bytes_changed(files: Files, draw: random.Random) -> Files:
    """Some bytes of any file are others."""
    key = draw.choice(
        sorted(files.keys() - {layout.TAG_MANIFEST, layout.FILES, layout.MANIFEST, layout.BAG_INFO})
    )
    data = files[key]
    at = draw.randint(0, len(data))
    return resealed(
        {**files, key: data[:at] + draw.randbytes(draw.randint(0, 8)) + data[at + draw.randint(0, 8) :]}
    )


def renamed(files: Files, draw: random.Random) -> Files:
    """A file has another name in all lists."""
    key = draw.choice([key for key in sorted(files) if key.startswith(layout.DATA)])
    name = layout.DATA + draw.choice(NAMES)
    return resealed({name if one == key else one: data for one, data in files.items()})


WAYS: tuple[Callable[[Files, random.Random], Files], ...] = (
    json_changed, list_changed, parquet_changed, parquet_changed, text_changed, bytes_changed, renamed,
)  # fmt: skip


@contextmanager
def time_limit() -> Iterator[None]:
    """Raise TimeoutError where something hangs."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"not done after {LIMIT_SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def drain(make: Callable[[], Iterator[Any]]) -> None:
    """Read what an iterator yields, to its end."""
    for _ in make():
        pass


def read_whole(files: Files, to: Path) -> set[str]:
    """Read a bundle in every way there is; return the classes of the errors by which that was refused."""
    store, refused = cast("Store", Memory(files)), set[str]()

    def tried(look: Callable[[], object]) -> None:
        try:
            look()
        except MoveoutError as error:
            refused.add(type(error).__name__ if str(error) else "an error without words")

    tried(partial(read_all, store))
    for level in Level:
        tried(partial(verify, store, level, workers=1, progress=Silent()))
    with suppress(MoveoutError):
        reader = BundleReader(store)
        everything = ObjectQuery(versions=True)
        for number, source in enumerate(reader.sources):
            if single_objects.is_bucket(reader, source):
                tried(partial(drain, partial(single_objects.find, reader, source, everything)))
                tried(partial(single_objects.fetch, reader, source, everything, to / str(number)))
        for row in reader.catalog():
            if row.has_rows:
                tried(partial(drain, partial(table_rows.rows, reader, row, 0, None)))
    return refused


def put_below(directory: Path, files: Files) -> bool:
    """Write files below a directory as others do who unpack what they get; tell whether all names could be made."""
    for key, data in files.items():
        path = (directory / key).resolve()
        if not path.is_relative_to(directory):
            return False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except (OSError, ValueError):
            return False
    return True


def below(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*")}


def try_all(good: Files, below_here: Path, inputs: int, app: Callable[[Path], str]) -> None:
    """Change a bundle in ``inputs`` ways; read each, and restore its database to the URL that ``app`` makes."""
    seed = os.environ.get("MOVEOUT_SEED") or str(random.SystemRandom().randrange(10**9))
    assert read_whole(good, below_here / "read") == set()
    assert read_whole(resealed(good), below_here / "read-too") == set()
    shutil.rmtree(below_here / "read", ignore_errors=True)
    shutil.rmtree(below_here / "read-too", ignore_errors=True)
    (below_here / "outside").mkdir()
    score, wrong = Counter[str](), list[str]()
    for number in range(inputs):
        draw = random.Random(f"{seed}/{number}")
        way = WAYS[number % len(WAYS)]
        changed = way(good, draw)
        what = [key for key in changed.keys() | good.keys() if changed.get(key) != good.get(key)]
        folder = below_here / "case"
        folder.mkdir()
        try:
            with time_limit():
                refused = read_whole(changed, folder / "read")
                assert "an error without words" not in refused
                if put_below(folder / "bundle", changed):
                    ended = call("restore", folder / "bundle", f"app={app(folder)}", "--quiet")
                    assert "Traceback" not in ended.err, ended.err[-600:]
                    refused |= {f"restore {ended.code}"} if ended.code else set()
            assert below(below_here / "outside") == set(), "something lies outside"
            assert {path.name for path in below_here.iterdir()} - {RESTORED} == {"outside", "case"}
        except Exception as error:
            wrong.append(
                f"MOVEOUT_SEED={seed}, bundle {number}: {way.__doc__} {sorted(what)[:4]}: {error!r}"[:900]
            )
        else:
            count("hostile inputs")
            score["refused" if refused else "read"] += 1
            score.update(refused)
        shutil.rmtree(folder)
    sys.stderr.write(f"\nMOVEOUT_SEED={seed}: {dict(score)}\n")
    assert not wrong, "\n".join(wrong[:20]) + f"\n{len(wrong)} in all"
    assert score["refused"] > score.total() // 4


def test_a_hostile_bundle(good: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    try_all(good, tmp_path, INPUTS, lambda folder: f"sqlite://{folder}/new.db")


@pytest.mark.parametrize("engine", ["postgres", "mariadb"])
def test_a_hostile_bundle_of_a_server(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for databases with every type. A restore takes longer, so there are fewer of them."""
    monkeypatch.chdir(tmp_path)
    server = request.getfixturevalue(f"other_{engine}")
    source = request.getfixturevalue({"postgres": "torture", "mariadb": "my_torture"}[engine])
    ended = call("export", f"app={source}", "--to", tmp_path / "bundle", "--quiet")
    assert ended.code == 0, ended.err
    good = files_below(tmp_path / "bundle")
    shutil.rmtree(tmp_path / "bundle")
    try_all(good, tmp_path, -(-INPUTS // 4), lambda _: server.database())


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def test_hostile_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables, columns, indexes, views and texts with hostile names arrive as they are."""
    monkeypatch.chdir(tmp_path)
    seed = os.environ.get("MOVEOUT_SEED") or str(random.SystemRandom().randrange(10**9))
    (tmp_path / "outside").mkdir()
    for number in range(-(-INPUTS // 4)):
        draw = random.Random(f"{seed}/names/{number}")
        folder = tmp_path / "case"
        folder.mkdir()
        names = [name for name in draw.sample(NAMES, 12) if not name.lower().startswith("sqlite_")]
        tables = list({name.lower(): name for name in names[:3]}.values())
        columns = list({name.lower(): name for name in names[3:6]}.values())
        with closing(sqlite3.connect(folder / "app.db")) as connection:
            for place, table in enumerate(tables):
                listed = ", ".join(f"{quoted(column)} TEXT" for column in columns)
                connection.execute(f"CREATE TABLE {quoted(table)} ({listed})")
                connection.execute(
                    f"INSERT INTO {quoted(table)} VALUES ({', '.join('?' * len(columns))})",
                    draw.sample(NAMES, len(columns)),
                )
                connection.execute(
                    f"CREATE INDEX {quoted(f'{names[6]}{place}')} ON {quoted(table)} ({quoted(columns[0])})"
                )
            connection.execute(f"CREATE VIEW {quoted(f'{names[7]} v')} AS SELECT * FROM {quoted(tables[0])}")
            connection.commit()
        message = f"MOVEOUT_SEED={seed}, names {number}: {names}"
        with time_limit():
            words = (
                "export",
                f"app={sqlite.url_of(folder / 'app.db')}",
                "--to",
                folder / "bundle",
                "--quiet",
            )
            for step in (
                words,
                ("verify", folder / "bundle", "--level", "full", "--quiet"),
                ("restore", folder / "bundle", f"app={sqlite.url_of(folder / 'new.db')}", "--quiet"),
            ):
                ended = call(*step)
                assert ended.code == 0, f"{message}: {step[0]} ended with {ended.code}: {ended.err}"
        assert sqlite.everything(folder / "new.db") == sqlite.everything(folder / "app.db"), message
        assert sqlite.schema_of(folder / "new.db") == sqlite.schema_of(folder / "app.db"), message
        assert below(tmp_path / "outside") == set(), message
        assert {path.name for path in tmp_path.iterdir()} == {"outside", "case"}, message
        count("hostile inputs")
        shutil.rmtree(folder)
