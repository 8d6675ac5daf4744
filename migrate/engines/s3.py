"""Buckets of S3, and of servers that speak its protocol."""

from exporters.engine import Engine

ENGINE = Engine(
    name="S3",
    schemes=("s3",),
    contents="objects",
    url_names="bucket",
    secrets=("access_key_id", "secret_access_key", "session_token"),
    secret_variables=("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    contact="migrate.discover.buckets:contact",
    exporter="exporters.objects.source:ObjectExporter",
    summary_of_gone="exporters.objects.source_summary:summary_of_gone",
    comparison="migrate.verify.live_bucket:compare_bucket",
    restorer="migrate.restore.objects.restore:BucketRestorer",
    create="migrate.restore.objects.bucket_settings:create_bucket",
    hold="migrate.custody.source_holds.bucket:open_hold",
    discovery="migrate.discover.buckets:discover",
    doctor="migrate.doctor.bucket_source:examine",
    destination_doctor="migrate.doctor.bucket_destination:examine",
)
