"""What value classes share: plain values for JSON, and secrets that are not shown."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import pytest
from msgspec import Struct, field
from rich.pretty import pretty_repr

from exporters.mysql.connection import MysqlAddress
from exporters.postgres.sessions.connection import PostgresAddress
from exporters.structs import as_dict
from migrate.custody.signing.keys import KeyFile, PublicKey
from migrate.storage.s3.access.minio_accounts import Account
from migrate.storage.s3.access.sts_sessions import SessionKey
from migrate.storage.s3.client import S3Location

SECRET = "correct-horse"
WITH_SECRETS = [
    MysqlAddress("mysql://me@host/db", "host", 3306, "me", "db", {}, SECRET),
    PostgresAddress("postgresql://me@host/db", {}, SECRET),
    KeyFile(PublicKey(b"", "me"), SECRET),
    Account("me", "name", None, is_enabled=True, secret_key=SECRET),
    SessionKey("me", datetime.now(UTC), SECRET, SECRET),
    S3Location("bucket", "me", None, {"secret_access_key": SECRET}),
]


class Point(NamedTuple):
    x: int
    y: int


class Leaf(Struct, frozen=True):
    name: str


class Tree(Struct):
    size: int
    leaf: Leaf
    leaves: list[Leaf]
    pairs: tuple[Leaf, ...] = ()
    by_name: dict[str, Leaf] = field(default_factory=dict)
    point: Point = Point(0, 0)


@pytest.mark.parametrize("value", WITH_SECRETS, ids=lambda value: type(value).__name__)
def test_secrets_are_not_shown(value):
    for shown in (repr(value), str(value), f"{[value]}", pretty_repr(value)):
        assert SECRET not in shown
        assert type(value).__name__ in shown
        assert "me" in shown


def test_a_struct_becomes_plain_values_in_the_order_of_its_fields():
    leaf = Leaf("a")
    tree = Tree(1, leaf, [leaf], (leaf,), {"a": leaf}, Point(1, 2))
    plain = as_dict(tree)
    assert list(plain) == ["size", "leaf", "leaves", "pairs", "by_name", "point"]
    assert plain == {
        "size": 1,
        "leaf": {"name": "a"},
        "leaves": [{"name": "a"}],
        "pairs": ({"name": "a"},),
        "by_name": {"a": {"name": "a"}},
        "point": (1, 2),
    }
    assert plain["leaves"] is not tree.leaves
    assert plain["point"].y == 2
