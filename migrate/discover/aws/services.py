"""The table of AWS services that hold data: how each is listed, which permission that needs, and what it means here.

Everything else reads this table: the discovery, the least IAM policy, the check of the bill, and the page
``docs/reference/aws-discovery.md``. The names of calls, fields and permissions are those of the AWS API references and
of the AWS Service Authorization Reference; names on the bill are those of Cost Explorer's dimension ``SERVICE``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct, field

GIB = 1024**3
MIB = 1024**2


class Call(Struct, frozen=True):
    """A call of AWS that only reads. ``client`` and ``operation`` are boto3's names.

    ``items`` is a JMESPath expression: the listed things in a page of the answer. ``permissions`` are the IAM actions;
    the first one is the call's own.
    """

    client: str
    operation: str
    items: str
    permissions: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.client, self.operation, self.items, self.permissions))


class Detail(Struct, frozen=True):
    """A second call for each listed thing, which takes its name as ``argument``. The size of the thing is then the sum
    of the sizes of the call's items.
    """

    call: Call
    argument: str


class Metric(Struct, frozen=True):
    """A metric of CloudWatch that says the bytes of a thing; its only dimension apart from ``StorageType`` is
    ``dimension``, the thing's name. ``is_free_space``: the bytes that are left of the thing's size.
    """

    namespace: str
    name: str
    dimension: str
    is_free_space: bool = False


class Resource(Struct, frozen=True):
    """One kind of thing in an account.

    ``kind`` is what people call it. Things of one call belong to the first resource whose ``condition`` holds (a
    JMESPath expression on the item, empty: always). ``name``, ``label`` and ``size`` are JMESPath expressions, too; the
    product of the sizes and ``unit`` is in bytes. ``scheme`` is that of the URL by which moveout takes the thing, empty
    where it cannot; then ``advice`` is the usual way to save it. ``part_of`` names the thing that this one belongs to:
    it is no entry of its own.
    """

    kind: str
    call: Call
    name: str
    advice: str = ""
    condition: str = ""
    label: str = ""
    size: tuple[str, ...] = ()
    unit: int = 1
    detail: Detail | None = None
    metric: Metric | None = None
    scheme: str = ""
    part_of: str = ""
    regional: bool = True


class Service(Struct, frozen=True):
    """A service, its names on the bill, and the resources that hold data in it."""

    name: str
    billing_names: tuple[str, ...]
    resources: tuple[Resource, ...]


_DB_INSTANCES = Call("rds", "describe_db_instances", "DBInstances", ("rds:DescribeDBInstances",))
_DB_CLUSTERS = Call("rds", "describe_db_clusters", "DBClusters", ("rds:DescribeDBClusters",))
"""DocumentDB and Neptune share these calls with RDS (RDS API reference, DescribeDBClusters)."""
_DB_CLUSTER_SNAPSHOTS = Call(
    "rds", "describe_db_cluster_snapshots", "DBClusterSnapshots", ("rds:DescribeDBClusterSnapshots",)
)
_DISK = Metric("AWS/RDS", "FreeStorageSpace", "DBInstanceIdentifier", is_free_space=True)
_VOLUME = Metric("AWS/RDS", "VolumeBytesUsed", "DBClusterIdentifier")
_REDIS_ADVICE = "Copy an RDB snapshot to S3 (copy-snapshot --target-bucket) and load it into the new server."
_DATABASE_SNAPSHOT_ADVICE = "Restore it to a database, or export it to S3 as Parquet (start-export-task)."

SERVICES: tuple[Service, ...] = (
    Service(
        "S3",
        (
            "Amazon Simple Storage Service",
            "Amazon Glacier",
            "Amazon S3 Glacier",
            "Amazon S3 Glacier Deep Archive",
        ),
        (
            Resource(
                "S3 bucket",
                Call(
                    "s3",
                    "list_buckets",
                    "Buckets",
                    (
                        "s3:ListAllMyBuckets",
                        "s3:GetBucketLocation",
                        "s3:GetBucketVersioning",
                        "s3:GetBucketObjectLockConfiguration",
                        "s3:ListBucket",
                        "s3:ListBucketVersions",
                    ),
                ),
                "Name",
                scheme="s3",
                regional=False,
            ),
            Resource(
                "S3 directory bucket",
                Call(
                    "s3",
                    "list_directory_buckets",
                    "Buckets[?ends_with(Name, '--x-s3')]",
                    ("s3express:ListAllMyDirectoryBuckets",),
                ),
                "Name",
                "Copy it to a general purpose bucket (aws s3 sync) and take that one.",
            ),
            Resource(
                "S3 table bucket",
                Call("s3tables", "list_table_buckets", "tableBuckets", ("s3tables:ListTableBuckets",)),
                "name",
                "Read its Iceberg tables with Athena, EMR or PyIceberg and write them to a general purpose bucket.",
            ),
        ),
    ),
    Service(
        "RDS",
        ("Amazon Relational Database Service",),
        (
            Resource(
                "instance of a cluster",
                _DB_INSTANCES,
                "DBInstanceIdentifier",
                condition="DBClusterIdentifier",
                part_of="DBClusterIdentifier",
            ),
            Resource(
                "RDS read replica",
                _DB_INSTANCES,
                "DBInstanceIdentifier",
                "It holds what its primary holds; the primary is listed by itself.",
                condition="ReadReplicaSourceDBInstanceIdentifier || ReadReplicaSourceDBClusterIdentifier",
                size=("AllocatedStorage",),
                unit=GIB,
            ),
            Resource(
                "RDS for PostgreSQL",
                _DB_INSTANCES,
                "DBInstanceIdentifier",
                condition="Engine == 'postgres'",
                size=("AllocatedStorage",),
                unit=GIB,
                metric=_DISK,
                scheme="postgresql",
            ),
            Resource(
                "RDS for MySQL or MariaDB",
                _DB_INSTANCES,
                "DBInstanceIdentifier",
                condition="Engine == 'mysql' || Engine == 'mariadb'",
                size=("AllocatedStorage",),
                unit=GIB,
                metric=_DISK,
                scheme="mysql",
            ),
            Resource(
                "RDS instance of another engine",
                _DB_INSTANCES,
                "DBInstanceIdentifier",
                "Use the engine's own export: native backup to S3 (SQL Server, Db2) or Data Pump to S3 (Oracle).",
                label="Engine",
                size=("AllocatedStorage",),
                unit=GIB,
            ),
            Resource(
                "RDS snapshot",
                Call(
                    "rds",
                    "describe_db_snapshots",
                    "DBSnapshots",
                    ("rds:DescribeDBSnapshots",),
                ),
                "DBSnapshotIdentifier",
                _DATABASE_SNAPSHOT_ADVICE,
                label="DBInstanceIdentifier",
                size=("AllocatedStorage",),
                unit=GIB,
            ),
            Resource(
                "Aurora replica cluster",
                _DB_CLUSTERS,
                "DBClusterIdentifier",
                "It holds what its primary holds; the primary is listed by itself.",
                condition="ReplicationSourceIdentifier && Engine != 'docdb' && Engine != 'neptune'",
            ),
            Resource(
                "Aurora PostgreSQL cluster",
                _DB_CLUSTERS,
                "DBClusterIdentifier",
                condition="Engine == 'aurora-postgresql' || Engine == 'postgres'",
                metric=_VOLUME,
                scheme="postgresql",
            ),
            Resource(
                "Aurora MySQL cluster",
                _DB_CLUSTERS,
                "DBClusterIdentifier",
                condition="Engine == 'aurora-mysql' || Engine == 'aurora' || Engine == 'mysql'",
                metric=_VOLUME,
                scheme="mysql",
            ),
            Resource(
                "database cluster of another engine",
                _DB_CLUSTERS,
                "DBClusterIdentifier",
                "Use the engine's own export.",
                condition="Engine != 'docdb' && Engine != 'neptune'",
                label="Engine",
            ),
            Resource(
                "Aurora snapshot",
                _DB_CLUSTER_SNAPSHOTS,
                "DBClusterSnapshotIdentifier",
                _DATABASE_SNAPSHOT_ADVICE,
                condition="Engine != 'docdb' && Engine != 'neptune'",
                label="DBClusterIdentifier",
                size=("AllocatedStorage",),
                unit=GIB,
            ),
        ),
    ),
    Service(
        "DocumentDB",
        ("Amazon DocumentDB (with MongoDB compatibility)",),
        (
            Resource(
                "DocumentDB cluster",
                _DB_CLUSTERS,
                "DBClusterIdentifier",
                "Dump it with mongodump from a machine in its VPC.",
                condition="Engine == 'docdb'",
                metric=Metric("AWS/DocDB", "VolumeBytesUsed", "DBClusterIdentifier"),
            ),
            Resource(
                "DocumentDB snapshot",
                _DB_CLUSTER_SNAPSHOTS,
                "DBClusterSnapshotIdentifier",
                "Restore it to a cluster and dump that one with mongodump.",
                condition="Engine == 'docdb'",
                label="DBClusterIdentifier",
            ),
            Resource(
                "DocumentDB elastic cluster",
                Call("docdb-elastic", "list_clusters", "clusters", ("docdb-elastic:ListClusters",)),
                "clusterName",
                "Dump it with mongodump from a machine in its VPC.",
            ),
        ),
    ),
    Service(
        "Neptune",
        ("Amazon Neptune",),
        (
            Resource(
                "Neptune cluster",
                _DB_CLUSTERS,
                "DBClusterIdentifier",
                "Export it with neptune-export, or read the graph by SPARQL or Gremlin.",
                condition="Engine == 'neptune'",
                metric=Metric("AWS/Neptune", "VolumeBytesUsed", "DBClusterIdentifier"),
            ),
            Resource(
                "Neptune snapshot",
                _DB_CLUSTER_SNAPSHOTS,
                "DBClusterSnapshotIdentifier",
                "Restore it to a cluster and export that one.",
                condition="Engine == 'neptune'",
                label="DBClusterIdentifier",
            ),
        ),
    ),
    Service(
        "DynamoDB",
        ("Amazon DynamoDB",),
        (
            Resource(
                "DynamoDB table",
                Call("dynamodb", "list_tables", "TableNames", ("dynamodb:ListTables",)),
                "@",
                "Export it to S3 (export-table-to-point-in-time) and take the bucket.",
                size=("TableSizeBytes",),
                detail=Detail(
                    Call("dynamodb", "describe_table", "[Table]", ("dynamodb:DescribeTable",)),
                    "TableName",
                ),
            ),
            Resource(
                "DynamoDB backup",
                Call(
                    "dynamodb",
                    "list_backups",
                    "BackupSummaries",
                    ("dynamodb:ListBackups",),
                    {"BackupType": "ALL"},
                ),
                "BackupName",
                "Restore it to a table and export that one to S3.",
                label="TableName",
                size=("BackupSizeBytes",),
            ),
        ),
    ),
    Service(
        "ElastiCache",
        ("Amazon ElastiCache",),
        (
            Resource(
                "ElastiCache replication group",
                Call(
                    "elasticache",
                    "describe_replication_groups",
                    "ReplicationGroups",
                    ("elasticache:DescribeReplicationGroups",),
                ),
                "ReplicationGroupId",
                _REDIS_ADVICE,
            ),
            Resource(
                "ElastiCache cluster",
                Call(
                    "elasticache",
                    "describe_cache_clusters",
                    "CacheClusters[?!ReplicationGroupId]",
                    ("elasticache:DescribeCacheClusters",),
                ),
                "CacheClusterId",
                _REDIS_ADVICE + " Memcached has no snapshots: fill it anew.",
                label="Engine",
            ),
            Resource(
                "ElastiCache serverless cache",
                Call(
                    "elasticache",
                    "describe_serverless_caches",
                    "ServerlessCaches",
                    ("elasticache:DescribeServerlessCaches",),
                ),
                "ServerlessCacheName",
                "Export a snapshot to S3 (export-serverless-cache-snapshot) and load it into the new server.",
            ),
            Resource(
                "ElastiCache snapshot",
                Call(
                    "elasticache",
                    "describe_snapshots",
                    "Snapshots",
                    ("elasticache:DescribeSnapshots",),
                ),
                "SnapshotName",
                "Copy it to S3 (copy-snapshot --target-bucket) and take the bucket.",
            ),
        ),
    ),
    Service(
        "MemoryDB",
        ("Amazon MemoryDB", "Amazon MemoryDB for Redis"),
        (
            Resource(
                "MemoryDB cluster",
                Call("memorydb", "describe_clusters", "Clusters", ("memorydb:DescribeClusters",)),
                "Name",
                _REDIS_ADVICE,
            ),
            Resource(
                "MemoryDB snapshot",
                Call("memorydb", "describe_snapshots", "Snapshots", ("memorydb:DescribeSnapshots",)),
                "Name",
                "Copy it to S3 (copy-snapshot --target-bucket) and take the bucket.",
            ),
        ),
    ),
    Service(
        "Redshift",
        ("Amazon Redshift",),
        (
            Resource(
                "Redshift cluster",
                Call("redshift", "describe_clusters", "Clusters", ("redshift:DescribeClusters",)),
                "ClusterIdentifier",
                "UNLOAD each table to S3 as Parquet and take the bucket.",
                size=("TotalStorageCapacityInMegaBytes",),
                unit=MIB,
            ),
            Resource(
                "Redshift snapshot",
                Call(
                    "redshift",
                    "describe_cluster_snapshots",
                    "Snapshots",
                    ("redshift:DescribeClusterSnapshots",),
                ),
                "SnapshotIdentifier",
                "Restore it to a cluster and UNLOAD its tables to S3.",
                label="ClusterIdentifier",
                size=("TotalBackupSizeInMegaBytes",),
                unit=MIB,
            ),
            Resource(
                "Redshift Serverless namespace",
                Call(
                    "redshift-serverless",
                    "list_namespaces",
                    "namespaces",
                    ("redshift-serverless:ListNamespaces",),
                ),
                "namespaceName",
                "UNLOAD each table to S3 as Parquet and take the bucket.",
            ),
        ),
    ),
    Service(
        "OpenSearch",
        ("Amazon OpenSearch Service", "Amazon Elasticsearch Service"),
        (
            Resource(
                "OpenSearch domain",
                Call("opensearch", "list_domain_names", "DomainNames", ("es:ListDomainNames",)),
                "DomainName",
                "Register an S3 repository, take a manual snapshot, and restore it in the new cluster.",
                size=("EBSOptions.VolumeSize", "ClusterConfig.InstanceCount"),
                unit=GIB,
                detail=Detail(
                    Call("opensearch", "describe_domain", "[DomainStatus]", ("es:DescribeDomain",)),
                    "DomainName",
                ),
            ),
            Resource(
                "OpenSearch Serverless collection",
                Call(
                    "opensearchserverless",
                    "list_collections",
                    "collectionSummaries",
                    ("aoss:ListCollections",),
                ),
                "name",
                "Read it by scroll or point-in-time search (it has no snapshots of its own to copy).",
            ),
        ),
    ),
    Service(
        "EFS",
        ("Amazon Elastic File System",),
        (
            Resource(
                "EFS file system",
                Call(
                    "efs",
                    "describe_file_systems",
                    "FileSystems",
                    ("elasticfilesystem:DescribeFileSystems",),
                ),
                "FileSystemId",
                "Mount it and copy the files (rsync), or copy them to S3 with DataSync and take the bucket.",
                label="Name",
                size=("SizeInBytes.Value",),
            ),
        ),
    ),
    Service(
        "FSx",
        ("Amazon FSx",),
        (
            Resource(
                "FSx file system",
                Call("fsx", "describe_file_systems", "FileSystems", ("fsx:DescribeFileSystems",)),
                "FileSystemId",
                "Mount it and copy the files, or copy them to S3 with DataSync and take the bucket.",
                label="FileSystemType",
                size=("StorageCapacity",),
                unit=GIB,
            ),
            Resource(
                "FSx backup",
                Call("fsx", "describe_backups", "Backups", ("fsx:DescribeBackups",)),
                "BackupId",
                "Restore it to a file system and copy the files.",
                label="FileSystem.FileSystemId",
                size=("SizeInBytes",),
            ),
        ),
    ),
    Service(
        "EBS",
        ("EC2 - Other",),
        (
            Resource(
                "EBS volume",
                Call("ec2", "describe_volumes", "Volumes", ("ec2:DescribeVolumes",)),
                "VolumeId",
                "Copy the files from the instance it is attached to (rsync), or read a snapshot of it block by block.",
                label="Tags[?Key == 'Name'] | [0].Value",
                size=("Size",),
                unit=GIB,
            ),
            Resource(
                "EBS snapshot",
                Call(
                    "ec2",
                    "describe_snapshots",
                    "Snapshots",
                    ("ec2:DescribeSnapshots",),
                    {"OwnerIds": ["self"]},
                ),
                "SnapshotId",
                "Make a volume of it and copy the files, or read its blocks with the EBS direct APIs (coldsnap).",
                label="Tags[?Key == 'Name'] | [0].Value || Description",
                size=("VolumeSize",),
                unit=GIB,
            ),
        ),
    ),
    Service(
        "ECR",
        ("Amazon EC2 Container Registry (ECR)", "Amazon Elastic Container Registry"),
        (
            Resource(
                "ECR repository",
                Call("ecr", "describe_repositories", "repositories", ("ecr:DescribeRepositories",)),
                "repositoryName",
                "Copy all tags to another registry (skopeo sync).",
                size=("imageSizeInBytes",),
                detail=Detail(
                    Call("ecr", "describe_images", "imageDetails", ("ecr:DescribeImages",)),
                    "repositoryName",
                ),
            ),
        ),
    ),
    Service(
        "AWS Backup",
        ("AWS Backup",),
        (
            Resource(
                "AWS Backup vault",
                Call(
                    "backup",
                    "list_backup_vaults",
                    "BackupVaultList[?NumberOfRecoveryPoints > `0`]",
                    ("backup:ListBackupVaults",),
                ),
                "BackupVaultName",
                "Restore what is needed of its recovery points, and take that.",
            ),
        ),
    ),
    Service(
        "Glacier",
        ("Amazon Glacier", "Amazon S3 Glacier"),
        (
            Resource(
                "Glacier vault",
                Call("glacier", "list_vaults", "VaultList", ("glacier:ListVaults",), {"accountId": "-"}),
                "VaultName",
                "Retrieve its inventory, then each archive (initiate-job): 3 to 5 hours each, in bulk up to 12.",
                size=("SizeInBytes",),
            ),
        ),
    ),
    Service(
        "Secrets Manager",
        ("AWS Secrets Manager",),
        (
            Resource(
                "secret",
                Call("secretsmanager", "list_secrets", "SecretList", ("secretsmanager:ListSecrets",)),
                "Name",
                "Read its value (get-secret-value) and keep it in the new host's store of secrets.",
            ),
        ),
    ),
    Service(
        "Systems Manager",
        ("AWS Systems Manager",),
        (
            Resource(
                "SSM parameter",
                Call("ssm", "describe_parameters", "Parameters", ("ssm:DescribeParameters",)),
                "Name",
                "Read its value (get-parameters --with-decryption) and keep it at the new host.",
            ),
        ),
    ),
    Service(
        "Cognito",
        ("Amazon Cognito",),
        (
            Resource(
                "Cognito user pool",
                Call(
                    "cognito-idp",
                    "list_user_pools",
                    "UserPools",
                    ("cognito-idp:ListUserPools",),
                    {"MaxResults": 60},
                ),
                "Id",
                "Export the users (list-users). Passwords cannot be exported: users set new ones.",
                label="Name",
            ),
            Resource(
                "Cognito identity pool",
                Call(
                    "cognito-identity",
                    "list_identity_pools",
                    "IdentityPools",
                    ("cognito-identity:ListIdentityPools",),
                    {"MaxResults": 60},
                ),
                "IdentityPoolId",
                "Export the identities (list-identities).",
                label="IdentityPoolName",
            ),
        ),
    ),
    Service(
        "SQS",
        ("Amazon Simple Queue Service",),
        (
            Resource(
                "SQS queue",
                # Without MaxResults the answer ends after 1000 queues and does not say so (SQS API reference).
                Call("sqs", "list_queues", "QueueUrls", ("sqs:ListQueues",), {"MaxResults": 1000}),
                "@",
                "Stop the senders and let the consumers drain it.",
            ),
        ),
    ),
    Service(
        "Kinesis",
        ("Amazon Kinesis",),
        (
            Resource(
                "Kinesis stream",
                Call("kinesis", "list_streams", "StreamNames", ("kinesis:ListStreams",)),
                "@",
                "Stop the senders and let the consumers drain it, or write it to S3 with Data Firehose.",
            ),
        ),
    ),
    Service(
        "Timestream",
        ("Amazon Timestream",),
        (
            Resource(
                "Timestream database",
                Call(
                    "timestream-write",
                    "list_databases",
                    "Databases",
                    ("timestream:ListDatabases", "timestream:DescribeEndpoints"),
                ),
                "DatabaseName",
                "UNLOAD each table to S3 and take the bucket.",
            ),
            Resource(
                "Timestream for InfluxDB instance",
                Call(
                    "timestream-influxdb",
                    "list_db_instances",
                    "items",
                    ("timestream-influxdb:ListDbInstances",),
                ),
                "name",
                "Back it up with the influx client (influx backup).",
                size=("allocatedStorage",),
                unit=GIB,
            ),
        ),
    ),
    Service(
        "CloudWatch Logs",
        ("AmazonCloudWatch",),
        (
            Resource(
                "log group",
                Call("logs", "describe_log_groups", "logGroups", ("logs:DescribeLogGroups",)),
                "logGroupName",
                "Export it to S3 (create-export-task) and take the bucket.",
                size=("storedBytes",),
            ),
        ),
    ),
    Service(
        "Lambda",
        ("AWS Lambda",),
        (
            Resource(
                "Lambda function",
                Call("lambda", "list_functions", "Functions", ("lambda:ListFunctions",)),
                "FunctionName",
                "Download its code (get-function); its environment variables are in the same answer.",
                size=("CodeSize",),
            ),
        ),
    ),
    Service(
        "Route 53",
        ("Amazon Route 53",),
        (
            Resource(
                "Route 53 zone",
                Call("route53", "list_hosted_zones", "HostedZones", ("route53:ListHostedZones",)),
                "Name",
                "Export its records (list-resource-record-sets) and enter them at the new name servers.",
                label="Id",
                regional=False,
            ),
        ),
    ),
    Service(
        "Route 53 Domains",
        ("Amazon Registrar",),
        (
            Resource(
                "registered domain",
                Call("route53domains", "list_domains", "Domains", ("route53domains:ListDomains",)),
                "DomainName",
                "Unlock it, get its transfer code, and move it to another registrar: that takes days, begin now.",
                regional=False,
            ),
        ),
    ),
)

HOLDS_NO_DATA = frozenset(
    {
        "Amazon API Gateway",
        "Amazon CloudFront",
        "Amazon Elastic Compute Cloud - Compute",
        "Amazon Elastic Container Service",
        "Amazon Elastic Container Service for Kubernetes",
        "Amazon Elastic Load Balancing",
        "Amazon EventBridge",
        "Amazon GuardDuty",
        "Amazon Simple Email Service",
        "Amazon Simple Notification Service",
        "Amazon Virtual Private Cloud",
        "AWS Certificate Manager",
        "AWS CloudShell",
        "AWS CloudTrail",
        "AWS Config",
        "AWS Cost Explorer",
        "AWS Data Transfer",
        "AWS Global Accelerator",
        "AWS Key Management Service",
        "AWS Security Hub",
        "AWS Shield",
        "AWS Step Functions",
        "AWS Support (Basic)",
        "AWS Support (Business)",
        "AWS Support (Developer)",
        "AWS Support (Enterprise)",
        "AWS WAF",
        "AWS X-Ray",
        "CloudWatch Events",
        "Tax",
    }
)
"""Names on the bill behind which lies nothing that a customer stored there: compute, traffic, watching, tax."""

ACCOUNT = Call("sts", "get_caller_identity", "[Account]", ("sts:GetCallerIdentity",))
REGIONS = Call(
    "ec2",
    "describe_regions",
    "Regions[?OptInStatus != 'not-opted-in'].RegionName",
    ("ec2:DescribeRegions",),
)
METRICS = Call("cloudwatch", "list_metrics", "Metrics", ("cloudwatch:ListMetrics",))
METRIC_DATA = Call("cloudwatch", "get_metric_data", "MetricDataResults", ("cloudwatch:GetMetricData",))
COSTS = Call("ce", "get_cost_and_usage", "ResultsByTime", ("ce:GetCostAndUsage",))


def resources() -> Iterator[tuple[Service, Resource]]:
    """Yield every resource of the table with its service."""
    for service in SERVICES:
        for resource in service.resources:
            yield service, resource


def calls() -> Iterator[Call]:
    """Yield every call that a discovery makes; those that several resources share several times."""
    yield from (ACCOUNT, REGIONS, METRICS, METRIC_DATA, COSTS)
    for _, resource in resources():
        yield resource.call
        if resource.detail is not None:
            yield resource.detail.call


def permissions() -> list[str]:
    """Return every IAM action that a discovery needs, in the order of names."""
    return sorted({action for call in calls() for action in call.permissions})


def policy() -> str:
    """Return the least IAM policy for a discovery, as JSON. The calls only list: they take no narrower resource."""
    statement = {
        "Sid": "MoveoutDiscover",
        "Effect": "Allow",
        "Action": permissions(),
        "Resource": "*",
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]}, indent=2) + "\n"
