"""Directories of CSV files as databases, ``csvdir:///path``: every ``*.csv`` with a line of names is a table."""

import csv
import datetime as dt
import hashlib
import json
import os
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from exporters.api import CatalogEntry, Enumeration, Gap, Outcome, SourceSummary, Survey, SurveyItem, Unit
from exporters.engine import Engine, LiveTables, TablesRequest
from exporters.errors import SourceGoneError, SourceItemError
from exporters.row_digest import RowsDigest, digest_texts, to_hex
from exporters.sql.chunk_plan import table_directory
from migrate.errors import NotEmptyError, UsageError
from migrate.restore.common.table_parts import parts_of, readable
from migrate.restore.common.table_restore import State, TableRestore

ENGINE = Engine(
    name="CSV files",
    schemes=("csvdir",),
    secrets=(),  # a URL of this engine needs no password
    exporter="toy_engine:CsvExporter",
    part_reader="toy_engine:CsvPartReader",
    live_reader="toy_engine:CsvLiveReader",
    restorer="toy_engine:CsvRestorer",
)
ROWS = 1000  # so many are in memory at once
STATE = ".moveout-restore.json"  # in a destination whose restore is not finished
DAMAGE = (pa.ArrowException, OSError, ValueError)


def folder_of(url):
    return Path(url.removeprefix("csvdir://"))


def tables_in(folder):
    return {file.stem: file for file in sorted(folder.glob("*.csv"))}


def rows_of(file):
    """Yield a table's rows as lists of texts, the names of its columns first."""
    with file.open(newline="", encoding="utf-8") as text:
        yield from csv.reader(text)


def batches(rows):
    while batch := list(islice(rows, ROWS)):
        yield batch


def text_of(row):
    """Return the text of a row that is digested: the same from CSV and from Parquet."""
    return json.dumps(row).encode()


def sha256(file):
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def lines(file):
    """Count the rows without parsing them: newlines outside of quotes, the line of names apart."""
    return b"".join(file.read_bytes().split(b'"')[::2]).count(b"\n") - 1


# ---- Export: ``exporters.api``


class CsvExporter:
    def open(self, name, url, host):
        folder = folder_of(url)
        if not folder.is_dir():
            raise SourceGoneError(f"there is no directory {folder}", next_step="check the path in the URL")
        return CsvSource(name, url, folder)


class CsvSource:
    def __init__(self, name, url, folder):
        self.name, self.url, self.folder = name, url, folder

    def survey(self):
        items = [
            SurveyItem(name, "table", lines(file), file.stat().st_size, exact=False)
            for name, file in tables_in(self.folder).items()
        ]
        return Survey(items, "CSV files")

    @contextmanager
    def snapshot(self, workspace, *, workers):
        yield CsvSnapshot(tables_in(self.folder))

    def close(self):
        pass


class CsvSnapshot:
    def __init__(self, files):
        self.files = files
        self.hashes = {
            name: sha256(file) for name, file in files.items()
        }  # the snapshot: files as they are now
        self.position = {"time": dt.datetime.now(dt.UTC).isoformat()}

    def units(self):
        for number, (name, digest) in enumerate(self.hashes.items(), 1):
            directory = table_directory(number, "", name)  # tables/0001.people
            spec = {"table": number, "directory": directory, "name": name, "sha256": digest}
            yield Unit(f"{directory}/{digest}", 0, self.files[name].stat().st_size, spec)

    def export(self, unit, sink):
        source = self.files[unit.spec["name"]]
        name = f"{unit.spec['directory']}/part-000000.parquet"
        rows, digest = rows_of(source), RowsDigest()
        columns = next(rows)
        schema = pa.schema([(column, pa.string()) for column in columns])
        with sink.create(name) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in batches(rows):
                arrays = [pa.array(column, pa.string()) for column in zip(*batch, strict=True)]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
                digest += digest_texts([text_of(row) for row in batch])
        if sha256(source) != unit.spec["sha256"]:
            raise SourceItemError(
                f"{source} changed while it was read", next_step="run the same command again"
            )
        facts = {"parts": [{"name": name, "rows": digest.rows}], "columns": columns}
        return Outcome(digest.rows, unit.size_bytes, digest.digest, facts=facts)

    def still_holds(self, done):
        return self.hashes.get(done.unit.spec["name"]) == done.unit.spec["sha256"]

    def finish(self, done, sink):
        exported = {unit.unit.spec["name"]: unit for unit in done}
        entries = [entry_of(name, unit) for name, unit in exported.items()]
        counts = [
            Enumeration("files", "the directory", len(self.hashes)),
            Enumeration("files", "exported", len(entries)),
            Enumeration("rows", "ends of lines outside of quotes", sum(map(lines, self.files.values()))),
            Enumeration("rows", "rows exported", sum(entry.items for entry in entries)),
        ]
        gaps = [Gap(name, "failed", "it was not read") for name in self.hashes if name not in exported]
        return SourceSummary(entries, counts, gaps=gaps, positions=[self.position], server="CSV files")


def entry_of(name, unit):
    number, outcome = unit.unit.spec["table"], unit.outcome
    digest, details = to_hex(outcome.digest), dict(outcome.facts)
    return CatalogEntry("table", number, "", name, outcome.items, outcome.size_bytes, digest, details)


# ---- Verification: ``exporters.engine.PartReader`` and ``LiveReader``


class CsvPartReader:
    read_errors = DAMAGE

    def digest_part(self, file, rows):
        return sum(map(digest_texts, self.part_texts(file)), RowsDigest())

    def part_columns(self, file):
        return pq.ParquetFile(file).schema_arrow.names

    def part_texts(self, file):
        for rows in part_rows(file):
            yield [text_of(row) for row in rows]

    def split(self, text):
        return [value.encode() for value in json.loads(text)]

    def label(self, schema, name):
        return f"{name}.csv"


def part_rows(file):
    for batch in pq.ParquetFile(file).iter_batches(ROWS):
        yield [list(row.values()) for row in batch.to_pylist()]


class CsvLiveReader:
    def live_tables(self, url, request, *, secrets):
        files = {("", name): file for name, file in tables_in(folder_of(url)).items()}
        chosen = files.keys() - set(request.without)
        return LiveTables({name: digest_file(files[name], request.advance) for name in chosen})

    @contextmanager
    def live_rows(self, url, *, secrets):
        yield CsvLiveRows(tables_in(folder_of(url)))


def digest_file(file, advance):
    digest, rows = RowsDigest(), rows_of(file)
    next(rows)
    for batch in batches(rows):
        texts = [text_of(row) for row in batch]
        digest += digest_texts(texts)
        advance(len(texts), sum(map(len, texts)))
    return digest


class CsvLiveRows:
    def __init__(self, files):
        self.files = files

    def columns(self, schema, name):
        return next(rows_of(self.files[name])) if name in self.files else None

    def key(self, schema, name):
        return []  # nothing tells the rows of a CSV file apart

    def each(self, schema, name, take):
        for batch in batches(islice(rows_of(self.files[name]), 1, None)):
            take([text_of(row) for row in batch])


# ---- Restore: ``migrate.restore.common.api.Restorer``


class CsvRestorer:
    def restore(self, request):
        if request.only or request.merge:
            raise UsageError(
                "CSV files are restored whole, into a directory of their own",
                next_step="leave --only and --merge out",
            )
        run = TableRestore.of(request)
        folder = folder_of(request.url)
        state = folder / STATE
        if state.exists():  # an earlier restore was interrupted
            run.require_same(
                State(*json.loads(state.read_text())), where=str(folder), how="empty the directory"
            )
        elif folder.exists() and any(folder.iterdir()):
            if differences(run, request.url):
                raise NotEmptyError(
                    f"{folder} holds something else already", next_step="name an empty directory"
                )
            return run.nothing_to_do("directory")
        folder.mkdir(parents=True, exist_ok=True)
        write(state, json.dumps([run.state.bundle, run.state.source]))  # before anything else
        parts = parts_of(run.tables)  # this engine's exporter writes one part a table
        done = {part.name for part in parts if (folder / f"{part.table.name}.csv").exists()}
        rows = run.begin_rows(parts, done)
        write_tables(run, folder, rows.parts, rows.advance)
        written = rows.end()
        findings = differences(run, request.url)
        state.unlink()
        return run.outcome(written, findings, [])

    def finished(self, reader, source, url, *, secrets):
        return []  # nothing is ever left out, so there is no record of it


def differences(run, url):
    """Read the destination back; return a sentence for each table that is not the bundle's."""
    request = TablesRequest(run.workers, run.begin_comparison())
    run.end_comparison(CsvLiveReader().live_tables(url, request, secrets={}).digests)
    return run.findings(run.tables, CsvPartReader().label)


def write_tables(run, folder, parts, advance):
    for part in parts:
        rows = [part.table.details["columns"]]
        with run.reader.open(part.key) as file:
            for batch in readable(part, part_rows(file)):
                rows += batch
                advance(len(batch), sum(len(text_of(row)) for row in batch))
        path = folder / f"{part.table.name}.csv"
        half = path.with_suffix(".half")  # a table is there whole or not at all
        with half.open("w", newline="", encoding="utf-8") as text:
            csv.writer(text, lineterminator="\n").writerows(rows)
            text.flush()
            os.fsync(text.fileno())
        half.rename(path)


def write(path, text):
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
