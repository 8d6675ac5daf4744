"""``-v`` says on stderr what is asked of whom, and nothing of it without."""

from tests.cli.conftest import call, run
from tests.tools.clients import boto_client


def test_what_is_asked_of_whom_is_said(postgres, mariadb, minio, tmp_path):
    app, shop, bundle = postgres.database(), mariadb.database(), tmp_path / "bundle"
    words = ("discover", app.rpartition("/")[0], shop.rpartition("/")[0], f"s3://?profile={minio.profile}")
    ended = call(*words, "-v")
    assert ended.code in {0, 3}, ended.err  # the servers may hold what other tests made unreadable
    assert "connecting to postgresql://postgres@127.0.0.1" in ended.err
    assert "connecting to mysql://moveout@127.0.0.1" in ended.err
    assert f"ListBuckets {minio.endpoint}/: 200" in ended.err
    silent = call(*words)
    assert (silent.code, "ListBuckets" in silent.err) == (ended.code, False)
    exported = call("export", "-v", f"app={app}", "--to", bundle, "--allow-empty")
    assert (exported.code, "pg_dump --format=custom" in exported.err) == (0, True), exported.err
    boto_client(minio.profile).create_bucket(Bucket="verbose")
    media = f"media=s3://verbose?profile={minio.profile}"
    exported = call("export", "-v", media, "--to", tmp_path / "media", "--allow-empty")
    assert "GetBucketCors s3://verbose/: 404" in exported.err, exported.err
    sent = call("transfer", "-v", bundle, tmp_path / "copy")
    assert "0 of " in sent.err
    assert " files lie at the destination" in sent.err
    refused = run("plan", "-v", "app=postgresql://me:sesame@127.0.0.1:1/app")
    assert ("plan -v app=" in refused.err, "sesame" in refused.err) == (True, False), refused.err
