"""Databases as people have them, by the command line: out, back, and equal."""

import functools
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import result
from tests.exporters.postgres.databases import dump, fetch
from tests.samples import sample

CHINOOK = sample("chinook-postgres.sql")

pytestmark = [
    pytest.mark.shared,
    pytest.mark.torture,
    pytest.mark.skipif(CHINOOK is None, reason="the sample databases are not next to the checkout"),
]

SAMPLES = {
    "chinook": (["chinook-postgres.sql"], 11, 15607),
    "sakila": (["sakila-postgres-schema.sql", "sakila-postgres-data.sql"], 21, None),
}


def load(postgres, url: str, name: str, directory: Path) -> None:
    """Run a sample's scripts by psql, in the database of ``url`` instead of one of their own."""
    for script in SAMPLES[name][0]:
        lines = (CHINOOK.parent / script).read_text().splitlines(keepends=True)
        copy = directory / script
        copy.write_text(
            "".join(
                line for line in lines if not line.startswith(("\\c ", "DROP DATABASE", "CREATE DATABASE"))
            )
        )
        command = [postgres.bin_dir / "psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", copy]
        subprocess.run(command, check=True, capture_output=True, env=os.environ, text=True)


@pytest.fixture(scope="module")
def exported(postgres, tmp_path_factory):
    """Load and export a sample, once; return its URL and the bundle."""

    @functools.cache
    def export(name):
        url, directory = postgres.database(), tmp_path_factory.mktemp(name)
        load(postgres, url, name, directory)
        words = ("export", f"app={url}", "--to", directory / "bundle", "--max-connections", 2)
        assert result(*words)["complete"]
        return url, directory / "bundle"

    return export


@pytest.mark.parametrize("name", ["chinook", "sakila"])
def test_a_sample_comes_back_equal(exported, other_postgres, name):
    (url, bundle), destination = exported(name), other_postgres.database()
    restored = result("restore", bundle, f"app={destination}")["restored"][0]
    assert (restored["findings"], restored["left_out"]) == ([], [])
    result("verify", bundle, "--level", "full", "--against", f"app={destination}")
    assert dump(destination) == dump(url)
    _, tables, rows = SAMPLES[name]
    counted = fetch(
        url, "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    assert counted[0][0] == tables
    assert rows is None or restored["items"] == rows


def test_one_table_of_a_sample_by_the_command_line(exported, other_postgres):
    (_, bundle), destination = exported("chinook"), other_postgres.database()
    restored = result("restore", bundle, f"app={destination}", "--only", "artist", "--only", "album")
    assert restored["restored"][0]["items"] == 275 + 347
    names = fetch(
        destination,
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1",
    )
    assert names == [("album",), ("artist",)]
    assert fetch(destination, "SELECT conname FROM pg_constraint WHERE contype = 'f'") == [
        ("album_artist_id_fkey",)
    ]
