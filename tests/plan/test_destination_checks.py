"""What a destination will not take is in the plan, before the first byte moves."""

import secrets

from exporters.objects.source import ObjectExporter
from migrate.case.model import Endpoint
from migrate.doctor.run import check_destinations
from migrate.plan.survey import survey
from tests.exporters.objects.conftest import BucketHost
from tests.tools.clients import boto_client


def test_keys_classes_and_locks_that_a_destination_does_not_take_are_in_the_plan(
    minio, versitygw, make_bucket
):
    name = f"planned-{secrets.token_hex(6)}"
    client = boto_client(minio.profile)
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    for key in ("ctl\u0001x", "name", "name/", "plain"):
        client.put_object(Bucket=name, Key=key, Body=b"")
    client.put_object(Bucket=name, Key="plain", Body=b"x", StorageClass="REDUCED_REDUNDANCY")
    source = ObjectExporter().open("shop", f"s3://{name}?profile={minio.profile}", BucketHost())
    planned = survey(source, workers=1)
    assert planned.survey.features["older versions"] == 1
    assert any("lists no key below" in warning for warning in planned.survey.warnings)
    destination = make_bucket(versitygw)
    sentences = warnings_of(planned, f"s3://{destination}?profile={versitygw.profile}")
    for word in ("U+0001", "a slash at the end, and an object", "REDUCED_REDUNDANCY", "no object lock"):
        assert [warning for warning in sentences if word in warning], word
    left = boto_client(versitygw.profile).list_object_versions(Bucket=destination)
    assert "Versions" not in left
    assert "DeleteMarkers" not in left
    [missing] = warnings_of(planned, f"s3://no-such-bucket-yet?profile={versitygw.profile}")
    assert "--object-lock-enabled-for-bucket" in missing


def warnings_of(planned, url):
    [checked] = check_destinations([planned], {"shop": Endpoint(url)}, examined=None, locations=())
    return checked.warnings
