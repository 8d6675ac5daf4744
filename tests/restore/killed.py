"""Restores that are killed before a statement."""

import os
import re
import signal
import threading
from pathlib import Path

import psycopg
import pymysql

from migrate.bundle.reader import BundleReader
from migrate.restore.common.api import RestoreRequest
from migrate.restore.source_restore import restore_source
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from tests.export.victims import run


def restore(bundle: Path, url: str):
    reader = BundleReader(open_location(str(bundle)))
    secrets = {"password": os.environ["TENANT"]} if url.startswith("postgresql") else {}
    return restore_source(RestoreRequest(reader, "app", url, 2, Silent(), secrets))


def die_before(bundle: str, url: str, number: int, pattern: str, count_to: str = "") -> None:
    """Restore, and be killed before the statement of this number that changes something and matches the pattern; or
    write into a file how many there were.
    """
    lock, count = threading.Lock(), 0

    def killing(real):
        def run_statement(self, statement, *words, **options):
            nonlocal count
            text = statement if isinstance(statement, str) else statement.decode()
            if re.match(
                r"\s*(CREATE|ALTER|DROP|INSERT|DELETE|UPDATE|COPY|LOAD|REFRESH|COMMIT)\b", text
            ) and re.search(pattern, text):
                with lock:
                    count += 1
                    if count == number:
                        os.kill(os.getpid(), signal.SIGKILL)
            return real(self, statement, *words, **options)

        return run_statement

    psycopg.Cursor.execute = killing(psycopg.Cursor.execute)
    psycopg.Cursor.copy = killing(psycopg.Cursor.copy)
    pymysql.Connection.query = killing(pymysql.Connection.query)
    restore(Path(bundle), url)
    if count_to:
        Path(count_to).write_text(str(count))


def spread(bundle: Path, url: str, folder: Path, cases: int = 16) -> list[int]:
    """Restore, and return numbers of statements that change something: the first ones, the last ones, and others."""
    count_to = folder / "count"
    victim = run(die_before, str(bundle), url, 0, "", str(count_to))
    victim.join()
    assert victim.exitcode == 0
    total = int(count_to.read_text())
    return sorted({1, 2, 3, total - 2, total - 1, total, *range(1, total, max(1, total // cases))})


def killed(bundle: Path, url: str, number: int = 1, pattern: str = "") -> bool:
    """Restore, and kill it there; False where it has ended before."""
    victim = run(die_before, str(bundle), url, number, pattern)
    victim.join()
    assert victim.exitcode in {0, -signal.SIGKILL}, victim.exitcode
    return victim.exitcode != 0
