"""Fills an AWS account with data of many services in three regions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-2")
VIRGINIA, IRELAND, SYDNEY = REGIONS

EXPECTED_SOURCES = {
    ("eu-west-1", "shop"),
    ("ap-southeast-2", "wiki"),
    ("ap-southeast-2", "legacy"),
    ("us-east-1", "ledger"),
    ("eu-west-1", "orders"),
    ("us-east-1", "shop-media"),
    ("eu-west-1", "shop-archive"),
}

EXPECTED_NOT_TAKEN = {
    ("RDS read replica", "shop-replica", "eu-west-1"),
    ("RDS instance of another engine", "erp (sqlserver-se)", "us-east-1"),
    ("RDS snapshot", "before-launch (shop)", "eu-west-1"),
    ("Aurora snapshot", "ledger-2026 (ledger)", "us-east-1"),
    ("Neptune cluster", "friends", "us-east-1"),
    ("DynamoDB table", "sessions", "eu-west-1"),
    ("DynamoDB table", "carts", "us-east-1"),
    ("DynamoDB backup", "carts-monday (carts)", "us-east-1"),
    ("ElastiCache cluster", "pages (memcached)", "eu-west-1"),
    ("ElastiCache replication group", "hot", "eu-west-1"),
    ("MemoryDB cluster", "durable", "us-east-1"),
    ("Redshift cluster", "warehouse", "ap-southeast-2"),
    ("Redshift snapshot", "warehouse-1 (warehouse)", "ap-southeast-2"),
    ("OpenSearch domain", "search", "eu-west-1"),
    ("ECR repository", "shop/web", "eu-west-1"),
    ("secret", "shop/database", "eu-west-1"),
    ("SSM parameter", "/shop/mode", "ap-southeast-2"),
    ("Kinesis stream", "clicks", "us-east-1"),
    ("Timestream database", "metrics", "us-east-1"),
    ("log group", "/shop/web", "eu-west-1"),
    ("Glacier vault", "old-books", "ap-southeast-2"),
}
"""Kind, name, region. Names that AWS makes up itself are not here."""

GENERATED = {
    ("SQS queue", "us-east-1"),
    ("Route 53 zone", ""),
    ("EFS file system", "eu-west-1"),
    ("FSx file system", "us-east-1"),
    ("EBS volume", "us-east-1"),
    ("EBS volume", "ap-southeast-2"),
    ("EBS snapshot", "us-east-1"),
    ("Cognito user pool", "eu-west-1"),
    ("Cognito identity pool", "eu-west-1"),
}
"""Kind and region of things whose names AWS makes up."""

Client = Callable[[str, str], Any]


def fill(client: Client) -> None:
    """Create everything. ``client`` returns a boto3 client of a service in a region."""
    _fill_databases(client)
    fill_without_databases(client)


def fill_without_databases(client: Client) -> None:
    """Create buckets, and what moveout does not take, in 17 services: moto's databases are names without a server."""
    _fill_buckets(client)
    _fill_stores(client)
    _fill_files(client)
    _fill_names_and_streams(client)


def _fill_buckets(client: Client) -> None:
    virginia, ireland = client("s3", VIRGINIA), client("s3", IRELAND)
    virginia.create_bucket(Bucket="shop-media")
    virginia.put_bucket_versioning(Bucket="shop-media", VersioningConfiguration={"Status": "Enabled"})
    virginia.put_object(Bucket="shop-media", Key="a", Body=b"12345")
    ireland.create_bucket(Bucket="shop-archive", CreateBucketConfiguration={"LocationConstraint": IRELAND})


def _fill_databases(client: Client) -> None:
    def instance(region: str, name: str, engine: str, **more: Any) -> None:
        client("rds", region).create_db_instance(
            DBInstanceIdentifier=name, Engine=engine, DBInstanceClass="db.t3.micro", **more
        )

    admin = {"MasterUsername": "admin", "MasterUserPassword": "long-enough", "AllocatedStorage": 20}
    instance(IRELAND, "shop", "postgres", PubliclyAccessible=True, **admin)
    client("rds", IRELAND).create_db_instance_read_replica(
        DBInstanceIdentifier="shop-replica", SourceDBInstanceIdentifier="shop", DBInstanceClass="db.t3.micro"
    )
    client("rds", IRELAND).create_db_snapshot(
        DBSnapshotIdentifier="before-launch", DBInstanceIdentifier="shop"
    )
    client("cloudwatch", IRELAND).put_metric_data(
        Namespace="AWS/RDS",
        MetricData=[
            {
                "MetricName": "FreeStorageSpace",
                "Dimensions": [{"Name": "DBInstanceIdentifier", "Value": "shop"}],
                "Value": 15 * 1024**3,
                "Unit": "Bytes",
            }
        ],
    )
    instance(SYDNEY, "wiki", "mysql", **admin)
    instance(SYDNEY, "legacy", "mariadb", EngineVersion="10.11.6", **admin)
    instance(VIRGINIA, "erp", "sqlserver-se", **admin)
    client("rds", SYDNEY).stop_db_instance(DBInstanceIdentifier="legacy")
    login = {"MasterUsername": "admin", "MasterUserPassword": "long-enough"}
    for region, name, engine in (
        (VIRGINIA, "ledger", "aurora-postgresql"),
        (IRELAND, "orders", "aurora-mysql"),
        (VIRGINIA, "friends", "neptune"),
    ):
        client("rds", region).create_db_cluster(DBClusterIdentifier=name, Engine=engine, **login)
    instance(VIRGINIA, "ledger-1", "aurora-postgresql", DBClusterIdentifier="ledger", PubliclyAccessible=True)
    client("rds", VIRGINIA).create_db_cluster_snapshot(
        DBClusterSnapshotIdentifier="ledger-2026", DBClusterIdentifier="ledger"
    )


def _fill_stores(client: Client) -> None:
    for region, name in ((IRELAND, "sessions"), (VIRGINIA, "carts")):
        client("dynamodb", region).create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
    client("dynamodb", VIRGINIA).put_item(TableName="carts", Item={"id": {"S": "1" * 100}})
    client("dynamodb", VIRGINIA).create_backup(TableName="carts", BackupName="carts-monday")
    client("elasticache", IRELAND).create_cache_cluster(
        CacheClusterId="pages", Engine="memcached", NumCacheNodes=1, CacheNodeType="cache.t3.micro"
    )
    client("elasticache", IRELAND).create_replication_group(
        ReplicationGroupId="hot", ReplicationGroupDescription="hot", Engine="redis",
        CacheNodeType="cache.t3.micro", NumCacheClusters=2,
    )  # fmt: skip
    client("memorydb", VIRGINIA).create_cluster(
        ClusterName="durable", NodeType="db.t4g.small", ACLName="open-access"
    )
    client("redshift", SYDNEY).create_cluster(
        ClusterIdentifier="warehouse", NodeType="ra3.large", MasterUsername="admin",
        MasterUserPassword="Long-enough-1", ClusterType="single-node",
    )  # fmt: skip
    client("redshift", SYDNEY).create_cluster_snapshot(
        SnapshotIdentifier="warehouse-1", ClusterIdentifier="warehouse"
    )
    client("opensearch", IRELAND).create_domain(
        DomainName="search",
        ClusterConfig={"InstanceCount": 2},
        EBSOptions={"EBSEnabled": True, "VolumeSize": 10},
    )
    client("timestream-write", VIRGINIA).create_database(DatabaseName="metrics")


def _fill_files(client: Client) -> None:
    client("efs", IRELAND).create_file_system(CreationToken="home")
    client("fsx", VIRGINIA).create_file_system(
        FileSystemType="LUSTRE", StorageCapacity=1200, SubnetIds=["subnet-12345678"]
    )
    ec2 = client("ec2", VIRGINIA)
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=8)["VolumeId"]
    ec2.create_snapshot(VolumeId=volume, Description="nightly")
    client("ec2", SYDNEY).create_volume(AvailabilityZone="ap-southeast-2a", Size=3)
    client("ecr", IRELAND).create_repository(repositoryName="shop/web")
    client("glacier", SYDNEY).create_vault(vaultName="old-books")


def _fill_names_and_streams(client: Client) -> None:
    client("secretsmanager", IRELAND).create_secret(Name="shop/database", SecretString="not to be read")
    client("ssm", SYDNEY).put_parameter(Name="/shop/mode", Value="not to be read", Type="String")
    client("cognito-idp", IRELAND).create_user_pool(PoolName="customers")
    client("cognito-identity", IRELAND).create_identity_pool(
        IdentityPoolName="guests", AllowUnauthenticatedIdentities=True
    )
    client("sqs", VIRGINIA).create_queue(QueueName="orders")
    client("kinesis", VIRGINIA).create_stream(StreamName="clicks", ShardCount=1)
    client("logs", IRELAND).create_log_group(logGroupName="/shop/web")
    client("route53", VIRGINIA).create_hosted_zone(Name="shop.example", CallerReference="1")
