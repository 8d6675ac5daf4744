"""An AWS account is discovered whole: every service of the table, in every region, each thing once."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import botocore
import botocore.client
import botocore.session
import pytest
from msgspec.structs import replace

from exporters.errors import SourceNotAllowedError, SourceUnreachableError, SourceUsageError
from migrate.case.loader import load
from migrate.discover.aws import services
from migrate.discover.aws.account import POLICY_STEP, FailedCalls, discover
from migrate.discover.aws.connection import Failure
from migrate.discover.left_behind import ask_case_servers, find_left_behind
from migrate.errors import UsageError
from migrate.runtime.progress import Silent
from scripts import docs
from scripts.process import free_port
from tests.discover.aws.sample_account import EXPECTED_NOT_TAKEN, EXPECTED_SOURCES, GENERATED, REGIONS
from tests.docs.pages import blocks

GIB = 1024**3
BUCKET_CALLS = (
    "get_bucket_location",
    "get_bucket_versioning",
    "get_object_lock_configuration",
    "list_objects_v2",
    "list_object_versions",
)
AUTOMATIC = ("rds:", "rs:")
"""Begins the names of snapshots that RDS and Redshift make by themselves."""


@pytest.fixture(scope="module")
def calls():
    """Every call that boto3 made for ``discovery``, as (client, operation)."""
    return set()


@contextmanager
def recorded(calls):
    """Add every call that boto3 makes meanwhile."""
    usual = botocore.client.BaseClient._make_api_call

    def record(self, operation_name, api_params):
        calls.add((self.meta.service_model.service_name, botocore.xform_name(operation_name)))
        return usual(self, operation_name, api_params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.client.BaseClient, "_make_api_call", record)
        yield


@pytest.fixture(scope="module")
def notes():
    return []


@pytest.fixture(scope="module")
def discovery(account, calls, notes):
    """The account as the role ``mover`` sees it, which has the printed policy and nothing else."""
    account.bill(
        ("Amazon Simple Storage Service", "us-east-1", "23.10"),
        ("Amazon Glacier", "us-east-1", "1.00"),
        ("Amazon DynamoDB", "eu-west-1", "5.00"),
        ("Amazon DynamoDB", "ap-southeast-2", "3.50"),
        ("Amazon Registrar", "global", "12.00"),
        ("Amazon Lightsail", "eu-west-1", "0.004"),
        ("Amazon Elastic Compute Cloud - Compute", "eu-west-1", "400.00"),
        ("Amazon Neptune", "eu-west-1", "0"),
    )
    with account.permissions_enforced(), recorded(calls):
        return discover("aws://mover", secrets={}, note=notes.append)


def sources(discovery):
    return {source.name: source for source in discovery.sources}


def test_everything_is_found_once(discovery):
    assert {(source.region, source.name) for source in discovery.sources} == EXPECTED_SOURCES
    entries = Counter(
        (entry.kind, entry.name, entry.region)
        for entry in discovery.not_taken
        if not entry.name.startswith(AUTOMATIC)
    )
    assert set(entries.values()) == {1}
    assert set(entries) >= EXPECTED_NOT_TAKEN
    rest = set(entries) - EXPECTED_NOT_TAKEN
    assert Counter((kind, region) for kind, _, region in rest) == Counter(GENERATED)
    assert len({name for name, _, _ in entries}) >= 15
    assert {region for _, _, region in entries} == {*REGIONS, ""}
    assert all(entry.advice for entry in discovery.not_taken)


def test_databases_are_sources_that_lack_a_password(discovery):
    by_name = sources(discovery)
    shop = by_name["shop"]
    assert shop.url.startswith("postgresql://admin@shop.")
    assert shop.url.endswith(".eu-west-1.rds.amazonaws.com:5432/*?sslmode=require")
    assert shop.facts[1:] == ["region eu-west-1", "publicly reachable", "its password has to be filled in"]
    assert shop.identity == "arn:aws:rds:eu-west-1:123456789012:db:shop"
    assert by_name["wiki"].url.endswith(".ap-southeast-2.rds.amazonaws.com:3306/*?ssl-mode=required")
    assert by_name["wiki"].facts[2] == "reachable only from inside its VPC"
    assert by_name["legacy"].problems == ("its status is stopped: it may not answer",)
    assert by_name["ledger"].url.startswith("postgresql://admin@ledger.cluster-")
    assert by_name["ledger"].facts[2] == "publicly reachable", "one of its instances is"
    assert by_name["orders"].url.startswith("mysql://admin@orders.cluster-")


def test_buckets_are_sources(discovery):
    media = sources(discovery)["shop-media"]
    assert (media.url, media.items, media.size_bytes) == ("s3://shop-media?profile=mover", 1, 5)
    assert media.facts == ("region us-east-1", "versioned")
    assert not media.problems
    assert sources(discovery)["shop-archive"].facts == ("region eu-west-1", "empty")


def test_sizes_are_in_bytes(discovery):
    sizes = {(entry.kind, entry.name.partition(" ")[0]): entry.size_bytes for entry in discovery.not_taken}
    assert sizes["RDS snapshot", "before-launch"] == 20 * GIB
    assert sizes["OpenSearch domain", "search"] == 2 * 10 * GIB
    assert sizes["DynamoDB backup", "carts-monday"] > 100
    by_kind = {(entry.kind, entry.region): entry.size_bytes for entry in discovery.not_taken}
    assert by_kind["EBS volume", "us-east-1"] == 8 * GIB
    assert by_kind["EBS volume", "ap-southeast-2"] == 3 * GIB
    assert by_kind["FSx file system", "us-east-1"] == 1200 * GIB


def test_cloudwatch_tells_the_free_space_of_a_disk(discovery):
    assert sources(discovery)["shop"].size_bytes == 20 * GIB - 15 * GIB
    assert sources(discovery)["wiki"].size_bytes == 20 * GIB


def test_the_bill_is_a_second_count(discovery):
    look = "in two months, and nothing of it was found there: look whether it holds data"
    strange = "in two months, and moveout does not know this service: look whether it holds data"
    assert discovery.gaps == [
        f"the bill has Amazon DynamoDB (ap-southeast-2): 3.50 USD {look}",
        f"the bill has Amazon Lightsail (eu-west-1): less than 0.01 USD {strange}",
        f"the bill has Amazon Registrar (global): 12.00 USD {look}",
    ]


def test_a_service_that_was_never_used_is_no_gap(discovery, notes):
    asking, not_offered = notes
    assert re.fullmatch(r"asking for \d\d lists in 3 regions of the account 123456789012", asking)
    assert not_offered == "ap-southeast-2: Timestream is not offered there, or was never used"


def test_each_call_of_the_table_is_made_and_no_other(discovery, calls):
    table = {(made.client, made.operation) for made in services.calls()}
    assert calls == table | {("s3", operation) for operation in BUCKET_CALLS}


def test_denied_calls_are_named(account):
    """The role may all but these; moto asks IAM as AWS does."""
    denied = (
        "rds:DescribeDBClusters", "dynamodb:DescribeTable", "ce:GetCostAndUsage", "ec2:DescribeSnapshots",
        "s3:ListBucket*",
    )  # fmt: skip
    role = account.add_role("guest", services.policy(), account.statement("Deny", *denied))
    with account.permissions_enforced():
        discovery = discover(f"aws://{role}", secrets={}, note=lambda _: None)
    assert discovery.gaps == [
        "all 3 regions: RDS, DocumentDB and Neptune could not be listed: rds:DescribeDBClusters is denied",
        "all 3 regions: EBS could not be listed: ec2:DescribeSnapshots is denied",
        "eu-west-1, us-east-1: sizes in DynamoDB could not be read: dynamodb:DescribeTable is denied",
        "the bill could not be read, so nothing counts a second time what is there: ce:GetCostAndUsage is denied",
    ]
    assert {entry.name for entry in discovery.not_taken if entry.kind == "DynamoDB table"} == {
        "sessions",
        "carts",
    }
    media = sources(discovery)["shop-media"]
    assert "its objects may not be listed: AccessDenied" in media.problems
    assert media.items == 1
    assert media.size_bytes, "CloudWatch says it, in moto with what Python needs for the object"


def test_a_role_that_may_nothing_is_told_each_action(account):
    role = account.add_role("nobody")
    with account.permissions_enforced():
        discovery = discover(f"aws://{role}", secrets={}, note=lambda _: None)
    assert not discovery.sources
    assert not discovery.not_taken
    assert discovery.gaps[0] == (
        "the account's regions could not be listed: ec2:DescribeRegions is denied; only us-east-1 was looked at"
    )
    assert "S3 could not be listed: s3:ListAllMyBuckets is denied" in discovery.gaps
    assert "Route 53 could not be listed: route53:ListHostedZones is denied" in discovery.gaps
    assert "us-east-1: SQS could not be listed: sqs:ListQueues is denied" in discovery.gaps
    assert len(discovery.gaps) == len(set(discovery.gaps))


def test_a_closed_region_is_one_sentence():
    """Organizations close regions by a policy: there every call is denied."""
    failed = FailedCalls(["eu-west-1", "me-south-1", "us-east-1"])
    for action in ("rds:DescribeDBInstances", "sqs:ListQueues"):
        denied = Failure(f"{action} is denied by a service control policy", is_denied=True)
        failed.add_listing(["RDS" if "rds" in action else "SQS"], "me-south-1", denied)
        if "sqs" in action:
            failed.add_listing(["SQS"], "us-east-1", denied)
    failed.add_listing(["Timestream"], "me-south-1", Failure("no such host", not_offered=True))
    assert failed.sentences(3) == [
        f"me-south-1: nothing could be listed: every call is denied; {POLICY_STEP}",
        "us-east-1: SQS could not be listed: sqs:ListQueues is denied by a service control policy",
    ]
    assert failed.not_offered() == ["me-south-1: Timestream is not offered there, or was never used"]


def test_an_account_that_cannot_be_asked(account, monkeypatch):
    with pytest.raises(UsageError, match="there is no AWS profile 'nope'"):
        discover("aws://nope", secrets={}, note=print)
    for url in ("aws://owner/shop", "aws://key@owner", "aws://owner?region=eu-west-1"):
        with pytest.raises(SourceUsageError, match="is not the URL of an AWS account"):
            discover(url, secrets={}, note=print)
    account.add_profile("stranger", "AKIAIOSFODNN7EXAMPLE", "wrong")
    with (
        account.permissions_enforced(),
        pytest.raises(SourceNotAllowedError, match=r"aws://stranger: InvalidClient"),
    ):
        discover("aws://stranger", secrets={}, note=print)
    with (account.folder / "config").open("a") as config:
        config.write("[profile half]\nregion = us-east-1\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\n\n")
        config.write("[profile typo]\nregion = nowhere\naws_access_key_id = a\naws_secret_access_key = b\n\n")
    with pytest.raises(SourceNotAllowedError, match="aws://half: Partial credentials"):
        discover("aws://half", secrets={}, note=print)
    with pytest.raises(SourceUsageError, match="aws://typo: AWS has no region 'nowhere'"):
        discover("aws://typo", secrets={}, note=print)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with pytest.raises(SourceUnreachableError, match=r"^aws://: Could not connect"):
        discover("aws://", secrets={}, note=print)


@pytest.mark.torture
def test_the_guide_finds_out_what_the_account_holds(account, tmp_path):
    commands = "\n".join(blocks("docs/guides/leave-aws.md", "sh")[:2]).replace("aws://aws", "aws://owner")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-euc", commands],
        cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert ended.returncode == 3, ended.stderr
    assert "its status is stopped" in ended.stdout
    case = load(tmp_path / "moveout.toml")
    assert len(case.sources) == len(EXPECTED_SOURCES)
    assert "s3://shop-media?profile=owner" in {source.url for source in case.sources.values()}
    assert {(entry.kind, entry.name, entry.region) for entry in case.not_taken} >= EXPECTED_NOT_TAKEN
    assert json.loads((tmp_path / "policy.json").read_text()) == json.loads(services.policy())
    printed = " ".join(ended.stdout.split())
    assert "not taken: DynamoDB table (2): sessions, carts; eu-west-1, us-east-1; 0 B. Export it" in printed

    account.client("kinesis", "ap-southeast-2").create_stream(StreamName="later", ShardCount=1)
    account.client("s3", "us-east-1").create_bucket(Bucket="later-bucket")
    case_of_servers = replace(case, sources={})
    answers = ask_case_servers(case_of_servers, Silent(), [])
    left_behind = find_left_behind(case_of_servers, case.sources, answers)
    assert list(left_behind.sentences()) == [
        "Also on aws://owner, not taken: later-bucket, Kinesis stream later."
    ]


def test_the_reference_page_has_the_table_of_services():
    assert docs.AWS_DISCOVERY.read_text(encoding="utf-8") == docs.aws_discovery(), (
        "run: python -m scripts.docs reference"
    )
    actions = set(re.findall(r"`([a-z0-9-]+:[A-Z]\w+)`", docs.aws_discovery()))
    assert actions == set(services.permissions())


FIELD = re.compile(r"'[^']*'|`[^`]*`|\b(?:starts_with|ends_with|contains)\b|([A-Za-z]\w+)")
"""A field's name in a JMESPath expression, not a function or a literal."""


@pytest.mark.torture
def test_the_table_has_calls_and_fields_that_aws_has():
    """botocore's description of AWS knows each call, and each name that the table takes from its answers."""
    session = botocore.session.get_session()
    for client in {made.client for made in services.calls()}:
        model = session.get_service_model(client)
        operations = {botocore.xform_name(name): name for name in model.operation_names}
        for made in services.calls():
            if made.client == client:
                shape = model.operation_model(operations[made.operation]).output_shape
                for name in fields(made.items):
                    assert name in members(shape), (made, name)
    for _, resource in services.resources():
        made = (resource.detail or resource).call
        model = session.get_service_model(made.client)
        operations = {botocore.xform_name(name): name for name in model.operation_names}
        listed = members(model.operation_model(operations[resource.call.operation]).output_shape)
        sized = members(model.operation_model(operations[made.operation]).output_shape)
        expressions = (resource.name, resource.label, resource.condition, resource.part_of)
        assert set(chain.from_iterable(map(fields, expressions))) <= listed, resource
        assert set(chain.from_iterable(map(fields, resource.size))) <= sized, resource


def fields(expression):
    return {name for name in FIELD.findall(expression) if name}


def members(shape, depth=5):
    """The names of all fields within an answer."""
    if depth == 0:
        return set()
    if shape.type_name == "list":
        return members(shape.member, depth)
    if shape.type_name != "structure":
        return set()
    return set(shape.members).union(*(members(inner, depth - 1) for inner in shape.members.values()))
