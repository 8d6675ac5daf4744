"""Whether a bucket keeps versions or has object lock may be denied to these credentials: it is never guessed."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from exporters.doctor import ExamineRequest
from exporters.objects import key_oddities
from exporters.objects.bucket_survey import OBJECT_LOCK
from migrate.bundle.object_index import ObjectRow, object_rows
from migrate.doctor.bucket_destination import examine
from migrate.errors import NotAllowedError
from migrate.restore.objects.destination_terms import Terms
from migrate.runtime.progress import Silent
from migrate.storage.s3 import capability_probe, destination_bucket, source_bucket
from migrate.storage.s3.capability_probe import LOCK_DENIED, ProbePlan, probe
from migrate.storage.s3.destination_bucket import open_destination_bucket
from migrate.verify.compare import ComparisonRequest
from migrate.verify.live_bucket import compare_bucket
from scripts.servers import S3Server
from tests.exporters.objects.conftest import MakeShop, OddShop, asks, take_out
from tests.tools.bundles import restore_from
from tests.tools.http_proxy import Answer, Asked, refusal

ENABLED = {"Status": "Enabled"}
DENIED = refusal(403, "AccessDenied")


@pytest.fixture
def denying(odd: OddShop) -> OddShop:
    """A bucket that does not say whether it keeps versions, nor whether it has object lock."""
    odd.proxy.answer = lambda asked: (
        DENIED if asks(asked, "versioning") or asks(asked, "object-lock") else None
    )
    return odd


def test_versions_behind_the_first_page_are_exported_where_nobody_says_that_there_are_some(
    denying: OddShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first page had none, so the bundle had the newest ones only, and said that the bucket keeps none."""
    monkeypatch.setattr(source_bucket, "PAGE_KEYS", 5)
    shop = denying.shop
    for number in range(6):
        shop.put(f"{number}")
    shop.boto.put_bucket_versioning(Bucket=shop.name, VersioningConfiguration=ENABLED)
    shop.put("z", b"older")
    shop.put("z", b"newer")
    reader = take_out(denying.url, tmp_path / "bundle")
    rows = [(row.key, row.is_latest) for row in object_rows(reader, "shop")]
    assert (len(rows), [is_latest for key, is_latest in rows if key == "z"]) == (8, [True, False])


def test_a_history_stops_at_a_destination_that_does_not_say_whether_it_keeps_versions(
    denying: OddShop, minio: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    """It was taken for one that keeps none, so only current versions arrived."""
    old = make_shop(minio)
    old.boto.put_bucket_versioning(Bucket=old.name, VersioningConfiguration=ENABLED)
    old.put("a", b"older")
    old.put("a", b"newer")
    reader = take_out(old.url, tmp_path / "bundle")
    with pytest.raises(NotAllowedError, match="whether it keeps versions may not be read") as raised:
        restore_from(reader, "shop", denying.url)
    assert "s3:GetBucketVersioning" in raised.value.next_step
    assert denying.shop.keys() == []
    with pytest.raises(NotAllowedError, match="whether it keeps versions may not be read"):
        compare_bucket(ComparisonRequest(reader, "shop", denying.url, workers=1, progress=Silent()))


def test_what_is_denied_is_named_and_holds_up_nothing_that_does_not_need_it(
    denying: OddShop, minio: S3Server, make_shop: MakeShop, tmp_path: Path
) -> None:
    """Of locks it was said that the destination's bucket has no object lock."""
    old = make_shop(minio)
    old.put("a", b"alone")
    outcome = restore_from(
        take_out(old.url, tmp_path / "bundle"), "shop", denying.url, pack_small_objects=True
    )
    assert (outcome.items, outcome.left_out) == (1, ())
    assert "written one by one" in outcome.notes[0]
    capabilities = probe(open_destination_bucket(denying.url), ProbePlan())
    assert (capabilities.versioning, capabilities.lock_denied) == (capability_probe.DENIED, True)
    locked = ObjectRow(
        "a",
        1,
        "",
        "",
        "",
        None,
        "",
        0,
        lock_mode="COMPLIANCE",
        lock_until="2100-01-01T00:00Z",
        legal_hold=True,
    )
    losses = {loss.property: loss.reason for loss in Terms.of(capabilities).losses("a", locked)}
    assert losses["legal hold"] == LOCK_DENIED
    assert losses["retention"].endswith(LOCK_DENIED)
    request = ExamineRequest(denying.url, needs={"features": {OBJECT_LOCK: 1}})
    findings = [finding for finding in examine(request).findings if finding.check == "rights"]
    assert [finding.severity for finding in findings] == ["info", "loses"]
    rights = [finding.fix.text.partition("s3:")[2].partition('"')[0] for finding in findings if finding.fix]
    assert rights == ["GetBucketVersioning", "GetBucketObjectLockConfiguration"]


@pytest.mark.parametrize("answer", [DENIED, refusal(503, "SlowDown")], ids=["denied", "busy once"])
def test_tags_go_to_a_destination_that_does_not_show_them(
    odd: OddShop, minio: S3Server, make_shop: MakeShop, tmp_path: Path, answer: Answer
) -> None:
    """They were said to be lost, and left out, for one answer to what tries the destination out."""
    old = make_shop(minio)
    old.put("a", Tagging="who=me")
    reader = take_out(old.url, tmp_path / "bundle")
    asked_keys: set[str] = set()

    def shown(asked: Asked) -> Answer | None:
        if not asks(asked, "tagging") or (answer is not DENIED and asked.path in asked_keys):
            return None
        asked_keys.add(asked.path)
        return answer

    odd.proxy.answer = shown
    assert restore_from(reader, "shop", odd.url).items == 1
    assert asked_keys
    tags = odd.shop.boto.get_object_tagging(Bucket=odd.shop.name, Key="a")["TagSet"]
    assert tags == [{"Key": "who", "Value": "me"}]


def test_a_destination_that_is_busy_for_a_while_refuses_nothing(
    odd: OddShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it is tried out with was said to be refused, for a day."""
    monkeypatch.setattr(destination_bucket, "_ATTEMPT_SECONDS", 0.0)
    busy, times = refusal(503, "SlowDown"), count()
    odd.proxy.answer = lambda asked: busy if asked.method == "PUT" and next(times) < 12 else None
    capabilities = probe(open_destination_bucket(odd.url), ProbePlan([key_oddities.EMPTY], tags=True))
    assert next(times) > 12
    assert (capabilities.lost_tags, capabilities.refused_keys.keys() - {key_oddities.EMPTY}) == ("", set())
