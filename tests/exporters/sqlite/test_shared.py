"""Databases as people have them, by the command line."""

import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from tests.cli.conftest import result
from tests.exporters.sqlite.databases import everything, schema_of, url_of
from tests.exporters.sqlite.sakila import make_sakila
from tests.sakila import read_sakila
from tests.samples import sample

pytestmark = [pytest.mark.shared, pytest.mark.torture]


@pytest.fixture
def chinook(tmp_path) -> Path:
    source = sample("chinook.sqlite")
    if source is None:
        pytest.skip("the sample database chinook is not next to the checkout")
    return source


@pytest.fixture
def sakila(tmp_path) -> Path:
    found = read_sakila()
    if found is None:
        pytest.skip("the sample database sakila is not next to the checkout")
    make_sakila(tmp_path / "sakila.sqlite", found)
    return tmp_path / "sakila.sqlite"


@pytest.mark.parametrize(
    ("name", "tables", "rows"),
    [("chinook", 11, 15607), ("sakila", 21, 46273)],
)
def test_a_sample_comes_back_equal(tmp_path, request, name, tables, rows):
    source = request.getfixturevalue(name)
    bundle, destination = tmp_path / "bundle", tmp_path / "new.sqlite"
    result("export", f"app={url_of(source)}", "--to", bundle)
    result("restore", bundle, f"app={url_of(destination)}")
    result("verify", bundle, "--level", "full", "--against", f"app={url_of(destination)}")
    assert everything(destination) == everything(source)
    assert schema_of(destination) == schema_of(source)
    compared = differences(source, destination)
    assert set(compared.values()) == {0}
    own = {table: count for table, count in counts(source).items() if table in compared}
    assert (len(own), sum(own.values())) == (tables, rows)
    if name == "chinook":
        tracks_are_read_by_duckdb(bundle)
    else:
        search_and_triggers_of_sakila_work(destination)


def own_tables(connection: sqlite3.Connection) -> list[str]:
    """Tables that hold rows of the application, not of SQLite or of a virtual table."""
    query = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite_%'"
    return [name for (name,) in connection.execute(query)]


def counts(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
        tables = own_tables(connection)
        return {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}


def differences(one: Path, other: Path) -> dict[str, int]:
    """How many rows of a table only one of two files has, as SQLite's EXCEPT counts them."""
    with closing(sqlite3.connect(f"file:{one}?immutable=1", uri=True)) as connection:
        connection.execute("ATTACH ? AS other", [f"file:{other}?immutable=1"])
        either = "SELECT count(*) FROM (SELECT * FROM {a} EXCEPT SELECT * FROM {b})"
        query = f"SELECT ({either}) + ({either.replace('{a}', '{c}').replace('{b}', '{a}').replace('{c}', '{b}')})"
        return {
            name: connection.execute(query.format(a=f'main."{name}"', b=f'other."{name}"')).fetchone()[0]
            for name in own_tables(connection)
        }


def search_and_triggers_of_sakila_work(destination: Path) -> None:
    with closing(sqlite3.connect(destination)) as connection:
        assert connection.execute("SELECT rowid FROM film_text WHERE film_text MATCH 'graffiti'").fetchall()
        assert connection.execute("SELECT count(*) FROM actor_info").fetchone() == (200,)
        connection.execute("INSERT INTO film_text (film_text) VALUES ('integrity-check')")
        connection.execute("UPDATE actor SET first_name = 'x' WHERE actor_id = 1")
        query = "SELECT substr(last_update, 1, 4) > '2020' FROM actor WHERE actor_id < 3 ORDER BY actor_id"
        assert connection.execute(query).fetchall() == [(1,), (0,)]


def tracks_are_read_by_duckdb(bundle: Path) -> None:
    catalog = f"SELECT directory FROM '{bundle}/data/catalog.parquet' WHERE name = 'Track'"
    ((directory,),) = duckdb.sql(catalog).fetchall()
    parts = f"{bundle}/data/app/{directory}/*.parquet"
    ((count, total),) = duckdb.sql(f"SELECT count(UnitPrice), sum(UnitPrice) FROM '{parts}'").fetchall()
    assert (count, total) == (3503, pytest.approx(3680.97))
