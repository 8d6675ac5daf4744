"""The same data named twice, sources within sources, and bundles that lie in a source or go down with it."""

import sqlite3

import pytest

from migrate.case.model import Endpoint
from migrate.case.overlaps import overlaps, shared_identities
from tests.cli.conftest import call

MEDIA = "s3://media?profile=old"


@pytest.mark.parametrize(
    ("sources", "bundle", "words"),
    [
        ({"a": MEDIA, "b": "s3://media/?profile=old"}, None, ["a and b are the same data"]),
        (
            {"a": "postgresql://me@old/app", "b": "postgresql://you@old/app"},
            None,
            ["a and b are the same data"],
        ),
        ({"a": MEDIA, "b": "s3://media/photos?profile=old"}, None, ["b lies within a"]),
        ({"a": "sqlite:///srv/app.db", "b": "sqlite:///srv"}, None, ["a lies within b"]),
        ({"a": MEDIA, "b": "s3://media-2?profile=old", "c": "s3://media?profile=other"}, None, []),
        ({"a": MEDIA}, "s3://media/bundle?profile=old", ["The bundle lies within the source a"]),
        ({"a": MEDIA, "b": f"{MEDIA}&request_payer=requester"}, None, ["a and b are the same data"]),
        (
            {"a": MEDIA},
            "s3://bundles/x?profile=old",
            ["The bundle lies on the same host or account as the source a:"],
        ),
        ({"a": "mysql://me@localhost/app"}, "bundle", ["The bundle lies on the same host or account"]),
        ({"a": "mysql://me@old/app", "b": MEDIA}, "bundle", []),
    ],
)
def test_overlaps_are_named(sources, bundle, words):
    endpoints = {name: Endpoint(url) for name, url in sources.items()}
    sentences = list(overlaps(endpoints, Endpoint(bundle) if bundle else None))
    assert len(sentences) == len(words), sentences
    assert [sentence for sentence, word in zip(sentences, words, strict=True) if word not in sentence] == []


def test_a_bundle_that_is_transferred_does_not_go_down_with_its_source():
    assert not list(
        overlaps({"a": Endpoint(MEDIA)}, Endpoint("s3://b/x?profile=old"), Endpoint("s3://c?profile=new"))
    )


@pytest.mark.parametrize(
    ("first", "second", "sentences"),
    [
        ("postgres:7/5", "postgres:7/5", ["a and b are the same data: it is exported twice"]),
        ("postgres:7/5", "postgres:7/55", []),
        ("s3:one/media/\nown", "s3:two/media/\nown", ["a and b are the same data: it is exported twice"]),
        ("s3:one/media/\nown", "s3:two/media/", []),
        ("s3:one/media/", "s3:one/media/photos/", ["b lies within a: its data is exported twice"]),
        ("s3:one/media/photos/", "s3:one/media/", ["a lies within b: its data is exported twice"]),
        ("", "", []),
    ],
)
def test_what_servers_say_of_themselves_tells_what_is_the_same(first, second, sentences):
    identities = {"a": first, "b": second}
    assert list(shared_identities(identities, known=())) == sentences
    assert list(shared_identities(identities, known=sentences)) == []


def test_export_and_plan_warn_of_it(tmp_path):
    sqlite3.connect(tmp_path / "app.db").execute("CREATE TABLE t (i)").connection.close()
    words = (f"a=sqlite://{tmp_path}/app.db", f"b=sqlite://{tmp_path}/app.db")
    sentence = "a and b are the same data: it is exported twice"
    assert sentence in call("plan", *words).out
    assert sentence in call("export", *words, "--to", tmp_path / "bundle").err
