"""The settings of a bucket and the ACLs of its objects, brought over by a sync as by a restore."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from migrate.custody.source_holds.bucket import BucketHold
from migrate.storage.s3.metadata.bucket_configuration import renamed, same_setting
from migrate.sync.bucket_settings import Decision, Rules, SettingsPolicy, is_unset
from scripts.servers import S3Server
from tests.custody.holding import place, take_back
from tests.exporters.objects.conftest import MakeShop, Shop, take_out
from tests.restore.objects.test_settings import LIFECYCLE, configured, make_locked, policy, with_ownership
from tests.sync.conftest import Move
from tests.tools.acl_proxy import AclProxy
from tests.tools.bundles import restore_from
from tests.tools.profiles import extra_profile

CORS = {"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["https://a.example"]}]}


def ledger(move: Move) -> dict[str, str]:
    """What the list of losses says of the bucket, by property."""
    rows = pq.read_table(io.BytesIO(move.location().read("losses.parquet"))).to_pylist()
    return {row["property"]: row["reason"] for row in rows if row["property"].startswith("bucket ")}


def tags(shop: Shop) -> dict[str, str]:
    tag_set = shop.boto.get_bucket_tagging(Bucket=shop.name)["TagSet"]
    return {tag["Key"]: tag["Value"] for tag in tag_set}


def tag(shop: Shop, **given: str) -> None:
    tagging = {"TagSet": [{"Key": key, "Value": value} for key, value in given.items()]}
    shop.boto.put_bucket_tagging(Bucket=shop.name, Tagging=tagging)


def test_settings_come_along_as_by_a_restore(minio: S3Server, other_minio: S3Server, tmp_path: Any) -> None:
    """With the record somewhere else also the default retention; the policy names the new bucket."""
    move = Move(configured(minio), make_locked(other_minio), record=str(tmp_path))
    done = move.run()
    assert (done.exit_code, done.copied) == (0, 1)
    assert done.settings == dict.fromkeys(("lifecycle", "object-lock", "policy", "tagging"), "written")
    assert ledger(move) == {}
    destination = move.destination
    found = destination.boto.get_bucket_policy(Bucket=destination.name)["Policy"]
    assert same_setting("policy", {"Policy": found}, {"Policy": policy(destination.name)})
    rules = destination.boto.get_bucket_lifecycle_configuration(Bucket=destination.name)["Rules"]
    assert {rule["ID"] for rule in rules} == {rule["ID"] for rule in LIFECYCLE["Rules"]}
    lock = destination.boto.get_object_lock_configuration(Bucket=destination.name)["ObjectLockConfiguration"]
    assert lock["Rule"] == {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    again = move.run(cutover=True)
    assert (again.settings, again.same) == ({}, 1)
    assert again.proof is not None


def test_what_a_hold_on_the_source_denies_is_not_denied_at_the_destination(
    minio: S3Server, other_minio: S3Server, make_shop: MakeShop, tmp_path: Any
) -> None:
    """Neither after a sync nor after a restore: nobody could delete anything there."""
    shop, synced, restored = configured(minio), make_shop(other_minio), make_shop(other_minio)
    holds, file = {"media": BucketHold(shop.url, try_as="", secrets=None)}, tmp_path / "undo.json"
    place(file, holds)
    try:
        done = Move(shop, synced).run()
        restore_from(take_out(shop.url, tmp_path / "bundle"), "shop", restored.url)
    finally:
        take_back(file, holds)
    assert "the source was held" in done.settings["policy"]
    for destination in (synced, restored):
        found = destination.boto.get_bucket_policy(Bucket=destination.name)["Policy"]
        assert same_setting("policy", {"Policy": found}, {"Policy": policy(destination.name)})


def test_what_a_hold_sets_at_the_source_is_not_set_at_the_destination(
    minio: S3Server, other_minio: S3Server, tmp_path: Any
) -> None:
    """Lifecycle rules stay as a sync wrote them. A policy that is a hold alone is gone, and goes with --delete."""
    hold = {"Policy": json.dumps({"Statement": {"Sid": "MoveoutHoldBucket", "Effect": "Deny"}})}
    assert renamed("policy", hold, "old", "new") == renamed("policy", hold, "same", "same") == {}
    move = Move(configured(minio), make_locked(other_minio), record=str(tmp_path / "record"))
    assert move.run().settings["policy"] == "written"
    move.source.boto.delete_bucket_policy(Bucket=move.source.name)
    holds, file = {"media": BucketHold(move.source.url, try_as="", secrets=None)}, tmp_path / "undo.json"
    place(file, holds)
    try:
        done = move.run(delete=True)
        assert "the source was held" in done.settings["policy"]
        assert "lifecycle" not in done.settings, "the rules are as they were before the hold"
    finally:
        take_back(file, holds)
    destination = move.destination
    with pytest.raises(destination.boto.exceptions.ClientError, match="NoSuchBucketPolicy"):
        destination.boto.get_bucket_policy(Bucket=destination.name)
    rules = destination.boto.get_bucket_lifecycle_configuration(Bucket=destination.name)["Rules"]
    assert {rule["Status"] for rule in rules} == {"Enabled"}
    assert "lifecycle" not in move.run().settings


def test_a_default_retention_does_not_lock_the_record(minio: S3Server, other_minio: S3Server) -> None:
    move = Move(configured(minio), make_locked(other_minio))
    done = move.run()
    assert "--record" in done.settings["object-lock"]
    assert ledger(move).keys() == {"bucket object-lock"}
    assert move.run().exit_code == 0


def test_what_a_destination_does_not_take_is_in_the_ledger(
    minio: S3Server, versitygw: S3Server, make_shop: MakeShop
) -> None:
    move = Move(configured(minio), make_shop(versitygw))
    done = move.run()
    lost = ledger(move)
    assert "bucket lifecycle" in lost
    assert lost == {f"bucket {name}": why for name, why in done.settings.items() if why != "written"}
    assert json.loads(move.location().read("report.json"))["settings"] == done.settings


def test_settings_are_kept_in_step(move: Move) -> None:
    """What has changed at the source is written again, what is gone there goes with --delete."""
    move.source.put("a")
    tag(move.source, team="blue")
    assert move.run(dry_run=True).planned["settings"] == {"count": 1, "first": ["tagging"]}
    assert move.run().settings == {"tagging": "written"}
    assert move.run().settings == {}
    tag(move.source, team="red")
    assert move.run().settings == {"tagging": "written"}
    assert tags(move.destination) == {"team": "red"}
    move.source.boto.delete_bucket_tagging(Bucket=move.source.name)
    assert "--delete" in move.run().settings["tagging"]
    assert tags(move.destination) == {"team": "red"}
    assert "--delete" in ledger(move)["bucket tagging"]
    assert move.run(delete=True).settings == {"tagging": "removed"}
    with pytest.raises(move.destination.boto.exceptions.ClientError, match="NoSuchTagSet"):
        tags(move.destination)
    assert (ledger(move), move.run().settings) == ({}, {})


def test_what_the_destination_has_set_itself_stays(move: Move) -> None:
    move.source.put("a")
    tag(move.source, team="blue")
    tag(move.destination, own="1")
    assert "did not write" in move.run().settings["tagging"]
    assert tags(move.destination) == {"own": "1"}
    assert move.run(settings=SettingsPolicy.REPLACE).settings == {"tagging": "written"}
    assert tags(move.destination) == {"team": "blue"}
    tag(move.destination, own="2")
    assert "did not write" in move.run().settings["tagging"], "it was changed there since"
    tag(move.source, team="green")
    assert "left alone" in move.run(settings=SettingsPolicy.LEAVE).settings["tagging"]
    assert tags(move.destination) == {"own": "2"}


def test_a_bucket_with_objects_of_others_keeps_its_settings(move: Move) -> None:
    """A lifecycle of the source would expire them."""
    move.source.put("a")
    tag(move.source, team="blue")
    move.destination.put("mine")
    done = move.run()
    assert "did not write" in done.settings["tagging"]
    assert move.run(settings=SettingsPolicy.REPLACE).settings == {"tagging": "written"}


def test_between_prefixes_settings_stay(move: Move) -> None:
    move.source.put("p/a")
    tag(move.source, team="blue")
    move.source_prefix = "p"
    assert move.run().settings == {}


def test_decisions() -> None:
    """Only differences; only what is not set, or was written by a sync and not changed since."""
    old, new = CORS, {"CORSRules": [{"AllowedMethods": ["PUT"], "AllowedOrigins": ["*"]}]}
    own = {"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["https://own.example"]}]}

    def decided(there: Any, ours: Any, **rules: Any) -> Decision:
        known = {"cors": ours} if ours else {}
        return Rules(**rules).decide({"cors": new}, {"cors": new}, {"cors": there} if there else {}, known)

    assert decided(None, None).write == {"cors": new}
    assert decided(new, None) == Decision()
    assert decided(old, old).write == {"cors": new}
    assert decided(own, old).stay.keys() == {"cors"}
    assert decided(old, None).stay.keys() == {"cors"}
    assert decided(own, None, policy=SettingsPolicy.REPLACE).write == {"cors": new}
    assert decided(None, None, others=True).stay.keys() == {"cors"}
    assert decided(None, None, policy=SettingsPolicy.LEAVE).stay.keys() == {"cors"}
    gone = Rules(delete=True).decide({}, {}, {"cors": old}, {"cors": old})
    assert gone.remove == ("cors",)
    assert Rules(delete=True).decide({}, {}, {"cors": own}, {"cors": old}) == Decision()


def test_what_every_bucket_has_is_not_its_own() -> None:
    default = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}
    assert is_unset("encryption", {"ServerSideEncryptionConfiguration": {"Rules": [default]}})
    assert is_unset("object-lock", {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}})
    assert not is_unset("public-access-block", {"PublicAccessBlockConfiguration": {"BlockPublicAcls": True}})


def test_an_acl_of_the_bucket_that_names_nobody(versitygw: S3Server) -> None:
    shop, destination = (with_ownership(versitygw, "BucketOwnerPreferred") for _ in range(2))
    shop.put("a")
    shop.boto.put_bucket_acl(Bucket=shop.name, ACL="public-read")
    move = Move(shop, destination)
    assert move.run().settings["acl"] == "written"
    before, after = (one.boto.get_bucket_acl(Bucket=one.name)["Grants"] for one in (shop, destination))
    assert after == before


@pytest.mark.torture
def test_acls_of_objects_come_back_where_they_name_nobody(
    move: Move, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones, large ones; what names an account is in the ledger. A look at each object sees what has changed."""
    acls = {"open": "public-read", "signed": "authenticated-read", "shared": "named", "large": "public-read"}
    source, destination = move.source, move.destination
    for key in ("private", *acls):
        source.put(key, bytes(33 * 2**20) if key == "large" else b"x")
    with (
        AclProxy(source.server.endpoint, name="AmazonS3") as old,
        AclProxy(destination.server.endpoint, name="AmazonS3") as new,
    ):
        old.acls = {f"/{source.name}/{key}": acl for key, acl in acls.items()}
        here = extra_profile(monkeypatch, tmp_path, source.server, endpoint=old.endpoint)
        there = extra_profile(monkeypatch, tmp_path, destination.server, endpoint=new.endpoint)
        through = Move(source, destination, profiles=(here, there))
        assert through.run().copied == 5
        kept = {path.rpartition("/")[2]: acl for path, acl in new.acls.items()}
        assert {key: acl for key, acl in kept.items() if key in acls} == {
            key: acl for key, acl in acls.items() if acl != "named"
        }
        rows = pq.read_table(io.BytesIO(through.location().read("losses.parquet"))).to_pylist()
        assert [row["item"] for row in rows if row["property"] == "ACL"] == ["shared"]
        old.acls[f"/{source.name}/private"] = "public-read"
        assert through.run().copied == 0
        assert through.run(recheck=True).copied == 1
        assert new.acls[f"/{destination.name}/private"] == "public-read"
