"""What others write to the destination while it is restored is theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.servers import S3Server
from tests.exporters.objects.conftest import MakeShop, OddShop, take_out, upload
from tests.tools.bundles import restore_from
from tests.tools.http_proxy import Answer, Asked, refusal

KEYS = ("large", "small")


@pytest.fixture
def bundle(minio: S3Server, make_shop: MakeShop, tmp_path: Path):
    """Two objects, one of which is sent in parts."""
    shop = make_shop(minio)
    upload(shop, "large", bytes(5 * 2**20), b"rest")
    shop.put("small", b"old")
    return take_out(shop.url, tmp_path / "bundle")


def is_of_an_object(asked: Asked) -> bool:
    return asked.method in {"PUT", "POST"} and asked.path.rpartition("/")[2] in KEYS


def test_an_object_that_comes_while_its_own_is_on_the_way_is_left_alone(bundle, odd: OddShop) -> None:
    """It was written over by the old host's: the listing at the start was all that kept it."""

    written: set[str] = set()

    def application(asked: Asked) -> None:
        key = asked.path.rpartition("/")[2]
        if is_of_an_object(asked) and key not in written:
            written.add(key)
            odd.shop.put(key, b"new")

    odd.proxy.answer = application
    outcome = restore_from(bundle, "shop", odd.url, merge=True)
    assert sorted(outcome.findings) == [
        f"{key}: the bucket holds another object of this key; it was left alone" for key in KEYS
    ]
    assert outcome.items == 0
    get = odd.shop.boto.get_object
    assert [get(Bucket=odd.shop.name, Key=key)["Body"].read() for key in KEYS] == [b"new", b"new"]
    assert not odd.shop.boto.list_multipart_uploads(Bucket=odd.shop.name).get("Uploads")


def test_an_object_whose_answer_was_lost_is_known_again(bundle, odd: OddShop) -> None:
    """It is sent once more, and then its key is taken: by itself."""
    lost: list[str] = []

    def lose(asked: Asked) -> Answer | None:
        if not is_of_an_object(asked) or asked.path in lost or asked.query.keys() & {"uploads", "partNumber"}:
            return None
        lost.append(asked.path)
        odd.proxy.forward(asked)
        return refusal(503, "SlowDown")

    odd.proxy.answer = lose
    outcome = restore_from(bundle, "shop", odd.url)
    assert (outcome.items, outcome.findings, outcome.left_out, len(lost)) == (2, (), (), 2)


def test_a_server_that_counts_a_delete_marker_as_an_object_gets_it_all_the_same(bundle, odd: OddShop) -> None:
    taken = refusal(412, "PreconditionFailed")
    odd.proxy.answer = lambda asked: (
        taken if is_of_an_object(asked) and asked.header("if-none-match") else None
    )
    outcome = restore_from(bundle, "shop", odd.url)
    assert (outcome.items, outcome.findings) == (2, ())
    assert odd.shop.keys() == list(KEYS)
