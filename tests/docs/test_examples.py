"""docs/reference/bundle-example.md shows every kind of file of a bundle as moveout writes it today.

Names, fields and types have to be the same; values may differ. ``MOVEOUT_WRITE_EXAMPLES=1`` writes the examples anew.
"""

import json
import os
import re
import sqlite3
import tarfile
from contextlib import closing

import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import call
from tests.docs.pages import ROOT, text_of
from tests.exporters.mysql import databases as mysql
from tests.exporters.postgres import databases as postgres_databases
from tests.tools.clients import boto_client

PAGE = "docs/reference/bundle-example.md"
EXAMPLE = re.compile(r"^(### `(.+?)`\n.*?)```(\w+)\n(.*?)```\n", re.MULTILINE | re.DOTALL)
LINES, WIDTH = 8, 100
OF_OTHERS = re.compile(r"\\restrict|GRANT .* TO `(?!root`|moveout`|mariadb\.sys`)")
"""What differs from run to run: pg_dump's key, and accounts that other tests made on the server."""
SQL = """
    CREATE TYPE mood AS ENUM ('sad', 'happy');
    CREATE TABLE people (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, born timestamptz);
    INSERT INTO people (name, born) VALUES ('Ada', '1815-12-10Z'), ('Nobody', 'infinity');
    SELECT lo_from_bytea(4711, 'bytes');
"""


def moveout(folder, *words, code=0):
    ended = call(*words, "--quiet", "--no-input", cwd=folder)
    assert ended.code == code, ended.out + ended.err


def drop_accounts(server):
    """Drop the accounts that other tests left: an export brings all of a server's."""
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT user, host FROM mysql.user"
            " WHERE is_role = 'N' AND user NOT IN ('', 'root', 'moveout', 'mariadb.sys')"
        )
        for user, host in cursor.fetchall():
            cursor.execute(f"DROP USER `{user}`@`{host}`")


@pytest.fixture(scope="module")
def roots(tmp_path_factory, postgres, mariadb, minio, other_minio, make_bucket):
    """The folders that the page's sections speak of, by the sections' names."""
    folder = tmp_path_factory.mktemp("examples")
    app, shop, bucket, new = (
        postgres.database(),
        mariadb.database(),
        make_bucket(minio),
        make_bucket(other_minio),
    )
    drop_accounts(mariadb)
    postgres_databases.run_sql(app, SQL)
    mysql.run_sql(
        shop,
        "CREATE TABLE goods (id int PRIMARY KEY, price decimal(8,2)); INSERT INTO goods VALUES (1, 9.99)",
    )
    notes = folder / "notes.db"
    with closing(sqlite3.connect(notes)) as connection, connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
        connection.execute("INSERT INTO notes VALUES ('first')")
    client = boto_client(minio.profile)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    client.put_object(
        Bucket=bucket, Key="photos/1.jpg", Body=b"a photo", ContentType="image/jpeg", Tagging="a=b"
    )
    media, copy = f"s3://{bucket}?profile={minio.profile}", f"s3://{new}?profile={other_minio.profile}"
    moveout(folder, "keys", "init", "host.key", "--name", "host")
    moveout(
        folder, "export", f"app={app}", f"shop={shop}", f"notes=sqlite://{notes}", f"media={media}",
        "--to", "bundle", "--key", "host.key",
    )  # fmt: skip
    moveout(folder, "receive", "bundle", "--key", "host.key", "--level", "quick")
    moveout(
        folder, "export", f"media={media}", f"other=sqlite://{folder}/gone.db", "--to", "unfinished", code=3
    )  # fmt: skip
    moveout(folder, "restore", "bundle", f"media={copy}", "--report-to", "report")
    new = make_bucket(other_minio)
    sync = f"s3://{new}?profile={other_minio.profile}"
    moveout(folder, "sync", f"old={media}", f"new={sync}", "--record", "record", "--cutover")
    return {
        "A sealed bundle": folder / "bundle",
        "While an export is under way": folder / "unfinished",
        "The report of a restore": folder / "report",
        "The record of a sync": folder / "record",
    }


def sections():
    """The page's sections by name."""
    return dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text_of(PAGE), re.MULTILINE | re.DOTALL))


def example(path):
    """A file as the page shows it: not more than some lines, lists with one entry, long texts cut."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        columns = [f"{field.name}: {field.type}" for field in table.schema]
        return "\n".join(columns) + "\n"
    if path.suffix == ".tar":
        with tarfile.open(path) as tar:
            return "\n".join(tar.getnames()) + "\n"
    text = re.sub(r'/(?:[^\s"/]+/)+examples\d+/', "/srv/", path.read_text(encoding="utf-8"))
    if path.suffix == ".json":
        return json.dumps(shortened(json.loads(text)), indent=2, ensure_ascii=False) + "\n"
    if path.suffix == ".jsonl":
        return json.dumps(shortened(json.loads(text.splitlines()[0])), ensure_ascii=False, indent=2) + "\n"
    lines = [line for line in text.splitlines() if line.strip() and not OF_OTHERS.match(line)]
    return "\n".join(line[:WIDTH] for line in lines[:LINES]) + "\n"


def shortened(value):
    if isinstance(value, dict):
        return {key: shortened(inner) for key, inner in value.items()}
    if isinstance(value, list):
        nested = any(isinstance(inner, dict | list) for inner in value)
        return [shortened(inner) for inner in value[: 1 if nested else 4]]
    return value[: WIDTH - 20] + " …" if isinstance(value, str) and len(value) > WIDTH else value


def shape(text, name):
    """What of an example has to be the same today: fields and their types, columns; of other files how many lines."""
    if name.endswith((".json", ".jsonl")):
        return shape_of(json.loads(text))
    return text if name.endswith(".parquet") else len(text.splitlines())


def shape_of(value):
    if isinstance(value, dict):
        return {key: shape_of(inner) for key, inner in value.items()}
    if isinstance(value, list):
        shapes = [shape_of(inner) for inner in value]
        return shapes[:1] if all(one == shapes[0] for one in shapes) else shapes
    return type(value).__name__


def file_of(root, name):
    """The file that a heading names; what stands in ``<>`` differs from bundle to bundle."""
    files = sorted(root.glob(re.sub(r"<.+?>", "*", name)))
    assert files, f"{root} has no {name}: {[str(file.relative_to(root)) for file in root.rglob('*')]}"
    return files[0]


def test_the_examples_are_what_moveout_writes(roots):
    page = text_of(PAGE)
    for section, root in roots.items():
        for head, name, language, shown in EXAMPLE.findall(sections()[section]):
            now = example(file_of(root, name))
            if "MOVEOUT_WRITE_EXAMPLES" in os.environ:
                page = page.replace(f"{head}```{language}\n{shown}```", f"{head}```{language}\n{now}```")
            else:
                assert shape(shown, name) == shape(now, name), name
    if "MOVEOUT_WRITE_EXAMPLES" in os.environ:
        (ROOT / PAGE).write_text(page, encoding="utf-8")


def test_every_file_of_a_bundle_has_an_example(roots):
    for section, root in roots.items():
        documented = [re.sub(r"<.+?>", "*", name) for _, name, _, _ in EXAMPLE.findall(sections()[section])]
        documented += [
            re.sub(r"<.+?>", "*", name)
            for name in re.findall(r"^- `(.+?)`", sections()[section], re.MULTILINE)
        ]
        known = {file for pattern in documented for file in root.glob(pattern)}
        files = {file for file in root.rglob("*") if file.is_file()}
        if section == "While an export is under way":
            files = {file for file in files if "_work" in file.parts}
        assert not {str(file.relative_to(root)) for file in files - known}, section
