"""Databases as people have them, by the command line: out, back, and equal as mariadb-dump and the server see them."""

import functools
import re

import pytest

from tests.cli.conftest import result
from tests.exporters.mysql.databases import checksums, client, dump, fetch, run_sql
from tests.exporters.mysql.sakila import make_sakila
from tests.sakila import read_sakila
from tests.samples import sample

pytestmark = [pytest.mark.shared, pytest.mark.torture]

_NOT_HERE = re.compile(r"(?:CREATE|DROP) (?:SCHEMA|DATABASE)\b|USE ", re.IGNORECASE)


def load_chinook(url: str) -> None:
    """Run the sample's script in the database of ``url`` instead of one of its own."""
    script = sample("chinook-mysql.sql")
    if script is None:
        pytest.skip("the sample database chinook is not next to the checkout")
    lines = script.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    client("mariadb", url, given="".join(line for line in lines if not _NOT_HERE.match(line)))


def load_sakila(url: str) -> None:
    sakila = read_sakila()
    if sakila is None:
        pytest.skip("the sample database sakila is not next to the checkout")
    make_sakila(url, sakila)


SAMPLES = {"chinook": (load_chinook, 11, 15607), "sakila": (load_sakila, 21, 46273)}


@pytest.fixture(scope="module")
def exported(mariadb, tmp_path_factory):
    """Load and export a sample, once; return its URL and the bundle."""

    @functools.cache
    def export(name):
        url, bundle = mariadb.database(), tmp_path_factory.mktemp(name) / "bundle"
        SAMPLES[name][0](url)
        assert result("export", f"app={url}", "--to", bundle)["complete"]
        return url, bundle

    return export


@pytest.mark.parametrize("name", ["chinook", "sakila"])
def test_a_sample_comes_back_equal_and_its_code_works(exported, other_mariadb, name):
    _, tables, rows = SAMPLES[name]
    (url, bundle), destination = exported(name), other_mariadb.database()
    restored = result("restore", bundle, f"app={destination}")["restored"][0]
    assert (restored["findings"], restored["left_out"]) == ([], [])
    result("verify", bundle, "--level", "full", "--against", f"app={destination}")
    assert dump(destination) == dump(url)
    assert checksums(destination) == checksums(url)
    assert len(checksums(url)) == tables
    assert restored["items"] == rows
    if name == "sakila":
        try_code(url, destination)


def try_code(url, destination):
    """Views, functions and triggers of sakila do at the destination what they do at the source."""
    for query in (
        *(
            f"SELECT * FROM {view} ORDER BY 1, 2"
            for view in ("customer_list", "sales_by_store", "staff_list")
        ),
        "SELECT * FROM sales_by_film_category ORDER BY 1",
        "SELECT inventory_in_stock(9), inventory_held_by_customer(9), inventory_held_by_customer(10)",
        "CALL rewards_report(40)",
    ):
        assert fetch(destination, query) == fetch(url, query) != []
    run_sql(destination, "UPDATE actor SET first_name = 'x' WHERE actor_id = 1")
    assert fetch(
        destination, "SELECT year(last_update) > 2020 FROM actor WHERE actor_id < 3 ORDER BY actor_id"
    ) == [(1,), (0,)]


def test_one_table_of_a_sample_by_the_command_line(exported, other_mariadb):
    (_, bundle), destination = exported("chinook"), other_mariadb.database()
    restored = result("restore", bundle, f"app={destination}", "--only", "Artist", "--only", "Album")
    assert restored["restored"][0]["items"] == 275 + 347
    assert {row[0] for row in fetch(destination, "SHOW TABLES")} == {"Artist", "Album"}
