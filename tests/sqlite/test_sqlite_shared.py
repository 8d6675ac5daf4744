"""A database as people have it, by the command line."""

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tests.sqlite.databases import everything, schema_of, url_of

ROOT = Path(__file__).parents[2]
CHINOOK = ROOT.parent / "shared/data/chinook.sqlite"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not CHINOOK.exists(), reason="the sample databases are not next to the checkout"),
]


def moveout(*words: object) -> dict:
    command = [Path(sys.executable).parent / "moveout", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_chinook_by_the_command_line(tmp_path):
    bundle, target = tmp_path / "bundle", tmp_path / "new.sqlite"
    moveout("export", f"music={url_of(CHINOOK)}", "--to", bundle)
    moveout("restore", bundle, f"music={url_of(target)}")
    moveout("verify", bundle, "--level", "full", "--against", f"music={url_of(target)}")
    assert everything(target) == everything(CHINOOK)
    assert schema_of(target) == schema_of(CHINOOK)
    catalog = f"SELECT number FROM '{bundle}/data/catalog.parquet' WHERE name = 'Track'"
    ((number,),) = duckdb.sql(catalog).fetchall()
    parts = f"{bundle}/data/music/tables/{number}/*.parquet"
    ((count, total),) = duckdb.sql(f"SELECT count(UnitPrice), sum(UnitPrice) FROM '{parts}'").fetchall()
    assert (count, total) == (3503, pytest.approx(3680.97))
