"""Both sides compared without moveout: the databases' own hashes, pg_dump, the S3 servers' own ETags.

And the commands by which anyone can check a bundle, with tools that know nothing of moveout.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import duckdb
import psycopg
from botocore.config import Config

SAMPLE_EVERY = 20
"""Of how many ordinary objects one has its headers and tags compared; the odd and the large ones all have."""
_KINDS = {"r": "table", "m": "view", "S": "sequence"}
_HEADERS = (
    "ContentType",
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "Metadata",
)


class DifferenceError(Exception):
    """The two sides differ, or a bundle fails a check; the message names where."""


def compare_databases(old_url: str, new_url: str) -> str:
    """Compare rows, their hashes and sequences; return what agrees. Raises ``DifferenceError``."""
    with ThreadPoolExecutor(2) as pool:
        old, new = pool.map(_fingerprint, (old_url, new_url))
    _require_equal("databases differ in", old, new)
    kinds = Counter(name.split(" ", 1)[0] for name in old)
    rows = sum(int(value.split()[0]) for name, value in old.items() if name.startswith("table "))
    return (
        f"{rows:,} rows hash alike (tables: {kinds['table']}), and so do materialized views ({kinds['view']});"
        f" sequences stand alike ({kinds['sequence']})"
    )


def _fingerprint(url: str) -> dict[str, str]:
    """Return per table its count and the sum of its rows' hashes; per sequence its position."""
    fingerprints = {}
    with psycopg.connect(url, options="-c TimeZone=UTC -c search_path=pg_catalog") as connection:
        relations = connection.execute(
            "SELECT c.oid::regclass::text, c.relkind::text"
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind IN ('r', 'm', 'S')"
            " AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"
        ).fetchall()
        for name, kind in relations:
            if kind == "S":
                query = f"SELECT last_value::text || ' ' || is_called::text FROM {name}"
            else:
                hashes = "coalesce(sum(hashtextextended(t::text, 0)), 0)"
                query = f"SELECT count(*) || ' ' || {hashes} FROM {name} AS t"
            row = connection.execute(query).fetchone()
            fingerprints[f"{_KINDS[kind]} {name}"] = str(row[0]) if row else ""
    return fingerprints


def compare_schemas(bin_dir: Path, old_url: str, new_url: str) -> str:
    """Compare what ``pg_dump --schema-only`` says of both. Raises ``DifferenceError``."""
    old, new = (_schema(bin_dir, url) for url in (old_url, new_url))
    if old != new:
        lines = list(difflib.unified_diff(old, new, "old", "new", lineterm="", n=0))
        raise DifferenceError("the schemas differ:\n" + "\n".join(lines[:20]))
    return f"pg_dump --schema-only prints the same {len(old):,} lines"


def _schema(bin_dir: Path, url: str) -> list[str]:
    argv = [str(bin_dir / "pg_dump"), "--schema-only", "--no-owner", url]
    completed = subprocess.run(argv, capture_output=True, text=True, check=False)
    if completed.returncode:
        raise DifferenceError(f"pg_dump failed: {completed.stderr.strip()}")
    # \restrict and \unrestrict carry a random word.
    return [line for line in completed.stdout.splitlines() if not re.match(r"\\(un)?restrict |--|$", line)]


def compare_buckets(old_profile: str, new_profile: str, bucket: str) -> str:
    """Compare keys and content of all objects, headers and tags of a sample. Raises ``DifferenceError``."""
    config = Config(max_pool_connections=16)
    old, new = (
        boto3.Session(profile_name=name).client("s3", config=config) for name in (old_profile, new_profile)
    )
    listed_old, listed_new = _listing(old, bucket), _listing(new, bucket)
    sizes_old, sizes_new = (
        {key: size for key, (size, _) in listing.items()} for listing in (listed_old, listed_new)
    )
    _require_equal("object", sizes_old, sizes_new)
    # A single-part ETag is the MD5 that the server computed; where parts were cut differently, read both.
    unlike = [key for key in listed_old if listed_old[key] != listed_new[key]]
    for key in unlike:
        if _sha256(old, bucket, key) != _sha256(new, bucket, key):
            raise DifferenceError(f"the content of {key!r} differs")
    sample = [
        key
        for number, key in enumerate(listed_old)
        if not key.startswith("media/") or number % SAMPLE_EVERY == 0
    ]
    _require_equal("headers of", _described(old, bucket, sample), _described(new, bucket, sample))
    alike = f"{len(listed_old):,} objects have the same key, size and content"
    return f"{alike}; of {len(sample)} also headers, metadata and tags were compared"


def _listing(client: Any, bucket: str) -> dict[str, tuple[int, str]]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {item["Key"]: (item["Size"], item["ETag"]) for page in pages for item in page.get("Contents", ())}


def _sha256(client: Any, bucket: str, key: str) -> str:
    digest = hashlib.sha256()
    for block in client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(2**20):
        digest.update(block)
    return digest.hexdigest()


def _described(client: Any, bucket: str, keys: Sequence[str]) -> dict[str, str]:
    """Return headers, metadata and tags of each key."""

    def describe(key: str) -> str:
        head = client.head_object(Bucket=bucket, Key=key)
        tags = client.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
        return repr(
            [head.get(name) for name in _HEADERS] + sorted((tag["Key"], tag["Value"]) for tag in tags)
        )

    with ThreadPoolExecutor(8) as pool:
        return dict(zip(keys, pool.map(describe, keys), strict=True))


def _require_equal(description: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            raise DifferenceError(f"{description} {name!r}: old {old.get(name)!r}, new {new.get(name)!r}")


@dataclass(frozen=True, slots=True)
class Command:
    """A command that checks a bundle: as a person types it, and the program that it needs."""

    shown: str
    program: str


def commands(bundle: Path) -> list[Command]:
    """Return the four commands, to be typed in the bundle's directory."""
    bin_dir = Path(sys.executable).parent
    bagit = shlex.quote(str(bin_dir / "bagit.py"))
    table = f"{_posts(bundle)}/*.parquet"
    if shutil.which("duckdb"):
        duck = Command(f"duckdb -c \"select count(*) from '{table}'\"", "duckdb")
    else:
        code = f'import duckdb; print(duckdb.read_parquet("{table}").count("*"))'
        duck = Command(f"{shlex.quote(sys.executable)} -c '{code}'", sys.executable)
    return [
        Command("sha256sum -c manifest-sha256.txt", "sha256sum"),
        Command(f"{bagit} --validate .", str(bin_dir / "bagit.py")),
        Command("tar tf data/media/packs/pack-000000.tar", "tar"),
        duck,
    ]


def _posts(bundle: Path) -> str:
    """Return the directory of the table ``posts``: the bundle's own catalog says which it is."""
    catalog = str(bundle / "data/catalog.parquet")
    row = duckdb.execute(
        "SELECT source, directory FROM read_parquet(?) WHERE schema = 'social' AND name = 'posts'", [catalog]
    ).fetchone()
    if row is None:
        raise DifferenceError("the bundle's catalog has no table social.posts")
    return f"data/{row[0]}/{row[1]}"


def run_command(command: Command, bundle: Path) -> str:
    """Run a command in the bundle's directory, return its output's end. Raises ``DifferenceError``."""
    if shutil.which(command.program) is None:
        return f"  (not run: this machine has no {command.program})"
    completed = subprocess.run(
        ["/bin/sh", "-c", command.shown],
        cwd=bundle,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    lines = completed.stdout.splitlines()
    if completed.returncode:
        end = "\n".join(lines[-10:])
        raise DifferenceError(f"`{command.shown}` ended with {completed.returncode}:\n{end}")
    if len(lines) > 8:
        return f"  … {len(lines) - 1:,} lines\n  {lines[-1]}"
    return "\n".join(f"  {line}" for line in lines)
