"""A difference between two buckets is reported only where what was said explains it."""

from migrate.bundle.layout import is_source_name
from scripts.outsiders.bucket_move import explains, source_name

BEFORE = [(3, "digest", "etag-1", [("content-type", "text/plain")], [])]
OTHER_ETAG = [(3, "digest", "etag", [("content-type", "text/plain")], [])]
OTHER_TYPE = [(3, "digest", "etag", [("content-type", "text/html")], [])]


def test_a_lost_etag_explains_another_etag_and_nothing_else():
    assert explains(["ETag: sent whole"], BEFORE, OTHER_ETAG)
    assert not explains(["ETag: sent whole"], BEFORE, OTHER_TYPE)
    assert not explains(["ETag: sent whole"], BEFORE, [])


def test_nothing_said_explains_nothing_and_another_loss_explains():
    assert not explains([], BEFORE, OTHER_ETAG)
    assert explains(["ETag: sent whole", "headers: refused"], BEFORE, OTHER_TYPE)


def test_a_bucket_with_dots_is_a_source_of_another_name_than_one_with_hyphens():
    assert is_source_name(source_name("logs.2026"))
    assert source_name("logs.2026") != source_name("logs-2026")
