"""What travels through a scheduler: plain, versioned, without secrets, and the same again at the other end."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exporters.errors import SourceError, SourceUnreachableError
from exporters.limits import Limits
from exporters.selection import EVERYTHING, Selection
from migrate.bundle.object_index import ObjectRow
from migrate.case.model import Endpoint
from migrate.case.secrets import Secret
from migrate.cluster import protocol
from migrate.cluster.protocol import ExportJob, Order, Reach, RestoreJob, RowsJob, TransferJob
from migrate.errors import DamageError, MoveoutError, UsageError
from migrate.export.unit_runner import UnitRules
from migrate.restore.objects.copy import History
from migrate.restore.objects.destination_terms import Terms

CHOSEN = Selection(
    include=("a/**", "*.jpg"),
    min_bytes=3,
    older_than=datetime(2026, 11, 25, tzinfo=UTC),
    tags={"project": "blue"},
    current_only=True,
)


@pytest.mark.parametrize("selection", [EVERYTHING, CHOSEN])
def test_a_choice_and_limits_arrive_as_they_were(selection):
    there = json.loads(json.dumps(protocol.selection_json(selection)))
    assert protocol.selection_of(there) == selection
    limits = Limits(archive_tier="Bulk", deadline=datetime(2026, 12, 1, tzinfo=UTC))
    assert protocol.limits_of(json.loads(json.dumps(protocol.limits_json(limits)))) == limits


@pytest.mark.parametrize(
    "job",
    [
        ExportJob(
            "id", Reach("s3://new/b"), "lease", True, "media", Reach("s3://old", {"access_key_id": "env:KEY"}),
            {}, {}, {"inventory": "1"}, UnitRules(attempts=3, prove=True, sealed_before="2026-11-25T00:00:00Z"),
        ),
        TransferJob("id", Reach("s3://new/b"), "lease", False, Reach("/bundle"), 4),
        RowsJob("id", Reach("/bundle"), "4711", False, "app", Reach("postgresql://h/db")),
        RestoreJob("id", Reach("s3://t/.f/"), "lease", False, "media", Reach("/bundle"), Reach("s3://t"), {}, True),
    ],
)  # fmt: skip
def test_an_order_arrives_as_it_was(job):
    order = Order(job, [{"id": "packs/000001", "spec": {"shard": 0}}])
    assert protocol.decode(protocol.encode(order)) == order


def test_objects_and_terms_arrive_as_they_were():
    """Of a row travels what is not as usual: rows come by the million."""
    plain = ObjectRow("a", 3, "s", "m", "c", None, "data/x", 512)
    odd = ObjectRow(
        "a\udcff", 3, "s", "m", "c", datetime(2026, 11, 25, tzinfo=UTC), "data/y", 0, tags={"t": "ö"},
        version_id="v", is_latest=False, is_delete_marker=True, part_sizes=(5, 6), part_numbers=(1, 7), legal_hold=True,
    )  # fmt: skip
    batch = [History("p/a", [plain], 0), History("p/b", [plain, odd], 2)]
    encoded = protocol.batch_json(batch)
    assert protocol.batch_of(json.loads(json.dumps(encoded))) == batch
    assert set(encoded[0]["rows"][0]) == {
        "key", "size_bytes", "sha256", "md5", "crc64nvme", "modified", "file", "offset"
    }  # fmt: skip
    terms = Terms(True, refused_keys={"x": "says no"}, encrypts=True)
    assert protocol.terms_of(json.loads(json.dumps(protocol.terms_json(terms)))) == terms


def test_an_order_of_another_version_is_refused_with_the_remedy():
    text = protocol.encode(Order(TransferJob("id", Reach("a"), "l", False, Reach("b"), 1), []))
    with pytest.raises(UsageError, match="version 5") as caught:
        protocol.decode(text.replace('"version": 5', '"version": 6'))
    assert "the same moveout" in caught.value.next_step


def test_secrets_are_named_never_sent(monkeypatch, tmp_path):
    """A file's path means the same elsewhere; the value is nowhere in the text."""
    monkeypatch.setenv("OLD_KEY", "hush-hush")
    (tmp_path / "key").write_text("silence")
    secrets = {"access_key_id": Secret("env:OLD_KEY"), "secret_access_key": Secret("file:key", tmp_path)}
    endpoint = Endpoint("s3://old", secrets)
    reach = Reach.of(endpoint)
    text = protocol.encode(Order(TransferJob("id", reach, "l", False, reach, 1), []))
    assert "hush-hush" not in text
    assert "silence" not in text
    assert reach.endpoint().reveal() == endpoint.reveal()


def test_a_directory_means_the_same_in_another_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Reach.of(Endpoint("bundle")).url == str(Path(tmp_path) / "bundle")


def every_error():
    """All that are loaded, but for those of engines that are made of other arguments."""
    left = [MoveoutError]
    while left:
        kind = left.pop()
        left.extend(kind.__subclasses__())
        if "__init__" in vars(kind) and kind.__module__ not in {"exporters.errors", "migrate.errors"}:
            continue
        if issubclass(kind, DamageError):
            yield kind("k", expected="this", found="that", next_step="look")
        else:
            yield kind("it broke", next_step="look")


def test_errors_arrive_as_they_were():
    errors = list(every_error())
    arrived = [protocol.error_of(json.loads(json.dumps(protocol.error_json(error)))) for error in errors]
    assert len(errors) > 20
    assert [(type(one), str(one), one.next_step) for one in arrived] == [
        (type(one), str(one), one.next_step) for one in errors
    ]


def test_an_error_of_no_known_kind_becomes_one_of_the_source():
    error = protocol.error_of(protocol.error_json(ValueError("odd")))
    assert type(error) is SourceError
    assert "ValueError('odd')" in str(error)
    assert not isinstance(error, SourceUnreachableError)
