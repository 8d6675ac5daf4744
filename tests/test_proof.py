"""The demo's own comparison of two hosts notices what it is there for, and its seed is always the same."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from scripts import proof, seed
from tests.tools.clients import boto_client

SMALL = """
    CREATE TABLE people (id integer PRIMARY KEY, name text, born timestamptz);
    INSERT INTO people VALUES (1, NULL, 'infinity'), (2, '', '2001-01-01Z');
    CREATE SEQUENCE tickets;
"""
KEYS = ("plain", "odd/new\nline", "odd/..x")


@pytest.fixture
def twins(postgres, other_postgres):
    """Two small databases that are alike."""
    urls = postgres.database(), other_postgres.database()
    for url in urls:
        execute(url, SMALL)
    return urls


def execute(url, statement):
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture
def twin_buckets(minio, other_minio):
    """A function that makes a bucket of one name on both servers, the second with one difference."""

    def make(name, **difference):
        for server, changed in ((minio, {}), (other_minio, difference)):
            client = boto_client(server.profile)
            client.create_bucket(Bucket=name)
            for key in KEYS:
                headers = {"Body": b"the same", "ContentType": "text/plain", "Tagging": "a=b"}
                client.put_object(Bucket=name, Key=key, **(headers | (changed if key == KEYS[1] else {})))
        return minio.profile, other_minio.profile, name

    return make


def test_databases_that_are_alike_compare_alike(twins, postgres):
    assert proof.compare_databases(*twins) == (
        "2 rows hash alike (tables: 1), and so do materialized views (0); sequences stand alike (1)"
    )
    proof.compare_schemas(postgres.bin_dir, *twins)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("UPDATE people SET name = '' WHERE id = 1", "public.people"),
        ("UPDATE people SET born = '2001-01-01 00:00:00.000001Z' WHERE id = 2", "public.people"),
        ("DELETE FROM people WHERE id = 2", "public.people"),
        ("SELECT nextval('tickets')", "public.tickets"),
        ("CREATE TABLE more ()", "public.more"),
    ],
)
def test_one_difference_between_databases_is_found_and_named(twins, change, named):
    execute(twins[1], change)
    with pytest.raises(proof.DifferenceError, match=named):
        proof.compare_databases(*twins)


def test_a_missing_index_is_a_difference_of_the_schemas(twins, postgres):
    execute(twins[0], "CREATE INDEX people_by_name ON people (name)")
    with pytest.raises(proof.DifferenceError, match="people_by_name"):
        proof.compare_schemas(postgres.bin_dir, *twins)


def test_buckets_that_are_alike_compare_alike(twin_buckets):
    assert proof.compare_buckets(*twin_buckets("alike")).startswith("3 objects have the same key")


@pytest.mark.parametrize(
    "difference",
    [
        pytest.param({"Body": b"other bytes"}, marks=pytest.mark.torture),
        {"Body": b"The same"},
        {"ContentType": "text/html"},
        {"Tagging": "a=c"},
    ],
)
def test_one_difference_between_buckets_is_found_and_its_key_named(twin_buckets, difference, request):
    name = f"unlike-{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"
    with pytest.raises(proof.DifferenceError, match=r"new.{1,2}nline"):
        proof.compare_buckets(*twin_buckets(name, **difference))


@pytest.mark.torture
def test_the_seeded_database_is_the_same_every_time(postgres, other_postgres):
    urls = postgres.database(), other_postgres.database()
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(seed.seed_database, urls)) == [(204_209, 18)] * 2
    proof.compare_databases(*urls)


def test_the_seeded_objects_are_the_same_every_time_and_hold_every_odd_key():
    first, second = list(seed.objects()), list(seed.objects())
    assert first == second
    assert len(first) == seed.SMALL_OBJECTS + seed.LARGE_OBJECTS
    assert set(seed.ODD_KEYS) <= {one.key for one in first}
    assert all(len(one.body()) == one.size_bytes for one in first[-20:])
    assert hashlib.sha256(first[5].body()).digest() == hashlib.sha256(second[5].body()).digest()
