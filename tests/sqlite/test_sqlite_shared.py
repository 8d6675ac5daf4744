"""Databases as people have them, by the command line."""

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tests.samples import sample
from tests.sqlite.databases import everything, schema_of, url_of

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.shared


def moveout(*words: object) -> dict:
    command = [Path(sys.executable).parent / "moveout", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["chinook", "sakila"])
def test_a_sample_comes_back_equal(tmp_path, name):
    source = sample(f"{name}.sqlite")
    if source is None:
        pytest.skip(f"the sample database {name} is not next to the checkout")
    bundle, target = tmp_path / "bundle", tmp_path / "new.sqlite"
    moveout("export", f"app={url_of(source)}", "--to", bundle)
    moveout("restore", bundle, f"app={url_of(target)}")
    moveout("verify", bundle, "--level", "full", "--against", f"app={url_of(target)}")
    assert everything(target) == everything(source)
    assert schema_of(target) == schema_of(source)
    if name == "chinook":
        tracks_are_read_by_duckdb(bundle)


def tracks_are_read_by_duckdb(bundle: Path) -> None:
    catalog = f"SELECT number FROM '{bundle}/data/catalog.parquet' WHERE name = 'Track'"
    ((number,),) = duckdb.sql(catalog).fetchall()
    parts = f"{bundle}/data/app/tables/{number}/*.parquet"
    ((count, total),) = duckdb.sql(f"SELECT count(UnitPrice), sum(UnitPrice) FROM '{parts}'").fetchall()
    assert (count, total) == (3503, pytest.approx(3680.97))
