"""A destination that sorts text otherwise than the source is told before anything is made."""

import psycopg
import pytest

from exporters.postgres.definitions.collation import create_words, same
from tests.exporters.postgres.databases import export_database, fetch, run_sql
from tests.tools.bundles import read_bundle, restore_from


def test_another_order_of_text_is_noted(postgres, other_postgres, tmp_path):
    try:
        run_sql(
            postgres.url,
            "CREATE DATABASE sorted TEMPLATE template0 LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'en'",
        )
    except psycopg.errors.Error as exc:
        pytest.skip(f"this PostgreSQL is built without ICU: another order is not tried ({exc})")
    url = postgres.url_of("sorted")
    run_sql(url, "CREATE TABLE t (a text) PARTITION BY RANGE (a)")
    run_sql(url, "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM ('a') TO ('c'); INSERT INTO t VALUES ('B')")
    assert export_database(url, tmp_path / "bundle").complete
    reader = read_bundle(tmp_path / "bundle")
    destination = other_postgres.database()
    outcome = restore_from(reader, "app", destination)
    assert outcome.left_out == (
        "TABLE ATTACH public.t1: some of its rows belong into no partition of public.t here, so it has left it",
    )
    assert fetch(destination, "SELECT a FROM t1") == [("B",)]
    assert outcome.notes[0].startswith("text sorts as LC_COLLATE 'C' LC_CTYPE 'C' here")
    words = "LOCALE_PROVIDER icu ICU_LOCALE 'en'"
    assert words in outcome.notes[0]
    run_sql(other_postgres.url, f"CREATE DATABASE sorted TEMPLATE template0 LOCALE 'C' {words}")
    like = restore_from(reader, "app", other_postgres.url_of("sorted"))
    assert (like.findings, like.left_out, like.notes) == ((), (), ())


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [("C.UTF-8", "C.utf8", True), ("C", "POSIX", True), ("C", "C.UTF-8", False), ("en_US", "de_DE", False)],
)
def test_names_of_locales_are_compared(one, other, alike):
    assert same({"provider": "libc", "locale": one}, {"provider": "libc", "locale": other}) is alike


def test_what_makes_a_database_like_it():
    assert create_words({"provider": "libc", "locale": "it's"}) == "LC_COLLATE 'it''s' LC_CTYPE 'it''s'"
    assert (
        create_words({"provider": "builtin", "locale": "C.UTF-8"})
        == "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"
    )
