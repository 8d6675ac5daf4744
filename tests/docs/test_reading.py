"""docs/guides/read-a-bundle.md is true: every block of Python in it prints what stands below it."""

import os
import re
import subprocess
import sys

import pytest

from exporters.objects.source import ObjectExporter
from exporters.postgres.exporter import PostgresExporter
from exporters.testing import StandaloneHost
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.storage.s3.source_bucket import open_bucket
from tests.cli.conftest import MOVEOUT, call
from tests.docs.guide_shell import run_text
from tests.docs.pages import ROOT, blocks, text_of
from tests.exporters.postgres.databases import run_sql
from tests.tools.clients import boto_client

PAGE = text_of("docs/guides/read-a-bundle.md")
BLOCKS = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
READERS = re.findall(r"^## (DuckDB|pandas|Polars|Objects)$", PAGE, re.MULTILINE)


class BucketHost(StandaloneHost):
    def bucket(self, url):
        return open_bucket(url, secrets={})


@pytest.fixture(scope="module")
def folder(postgres, minio, make_bucket, tmp_path_factory):
    """A folder with the bundle that the page speaks of."""
    folder = tmp_path_factory.mktemp("reading")
    url, bucket = postgres.database(), make_bucket(minio)
    script = re.search(r"^```sql\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert script
    run_sql(url, script[1])
    client = boto_client(minio.profile)
    client.put_object(Bucket=bucket, Key="photos/1.jpg", Body=b"a photo")
    sources = [
        PostgresExporter().open("app", url, StandaloneHost()),
        ObjectExporter().open("media", f"s3://{bucket}?profile={minio.profile}", BucketHost()),
    ]
    assert export(sources, open_location(str(folder / "bundle")), workers=2, progress=Silent()).complete
    return folder


def test_the_page_has_every_reader():
    assert READERS == ["DuckDB", "pandas", "Polars", "Objects"]
    assert len(BLOCKS) == len(READERS)


@pytest.mark.parametrize(("code", "printed"), BLOCKS, ids=READERS)
def test_the_page_prints_what_it_says(folder, code, printed):
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / ".venv/readers")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == printed, done.stderr


DUCKDB = """#!{python}
import sys

import duckdb

option, script = sys.argv[1:]
assert option == "-init"
connection = duckdb.connect()
connection.execute(open(script).read())
for row in connection.execute(sys.stdin.read()).fetchall():
    print(*row)
"""
"""What stands in for DuckDB's shell, which is no package of Python's: it reads a script, then what is typed."""


def test_the_commands_of_the_page_answer(folder, minio, make_bucket, tmp_path):
    sql, views = blocks("docs/guides/read-a-bundle.md", "sh")
    copy = f"s3://{make_bucket(minio)}/shop?profile={minio.profile}"
    call("transfer", folder / "bundle", copy)
    env = {"PATH": f"{tmp_path}:{MOVEOUT.parent}:{os.environ['PATH']}"}
    answered = run_text(sql.replace("s3://vault/shop", f"'{copy}'"), folder=folder, env=env)
    assert answered.code == 0, answered
    assert all(words in answered.out for words in ("infinity", "count_star()")), answered
    written = (folder / "payments.csv").read_text().splitlines()
    assert (written[0].split(",")[:2], len(written)) == (["id", "paid"], 4)

    (tmp_path / "duckdb").write_text(DUCKDB.format(python=sys.executable))
    (tmp_path / "duckdb").chmod(0o755)
    typed = "SELECT count(*) FROM public.payments"
    shown = run_text(f"{views.strip()} <<< '{typed}'", folder=folder, env=env)
    assert (shown.code, shown.out) == (0, "3\n"), shown
