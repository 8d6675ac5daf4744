"""moto's server as an AWS account on loopback, and the profiles that lead to it."""

import json
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3

from scripts.process import Child, free_port, start
from tests.discover.aws.sample_account import REGIONS

SERVER = Path(__file__).with_name("moto_server.py")


@dataclass(frozen=True)
class MotoAccount:
    """A running moto server, and the profiles that lead to it. ``folder`` has the AWS configuration."""

    endpoint: str
    folder: Path
    child: Child
    _session: boto3.Session = field(default_factory=lambda: boto3.Session("test", "test"))
    """One for all clients: each session reads the models of services anew."""
    _clients: dict[tuple[str, str], Any] = field(default_factory=dict)

    def client(self, service: str, region: str) -> Any:
        """Return a boto3 client of the owner."""
        if (service, region) not in self._clients:
            client = self._session.client(service, region, endpoint_url=self.endpoint)
            self._clients[service, region] = client
        return self._clients[service, region]

    def post(self, path: str, body: Any) -> None:
        """Send something to moto's own API."""
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.endpoint}/moto-api/{path}", data=data, headers={"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=30).close()

    @contextmanager
    def permissions_enforced(self) -> Iterator[None]:
        """Let moto ask IAM about each request."""
        self.post("reset-auth", "0")
        try:
            yield
        finally:
            self.post("reset-auth", "inf")

    def bill(self, *lines: tuple[str, str, str]) -> None:
        """Let the next question for the costs bring these: service, region, US dollars. Half of it each month."""
        groups = [
            {
                "Keys": [service, region],
                "Metrics": {"UnblendedCost": {"Amount": str(Decimal(amount) / 2), "Unit": "USD"}},
            }
            for service, region, amount in lines
        ]
        self.post(
            "static/ce/cost-and-usage-results", {"results": [{"ResultsByTime": [{"Groups": groups}] * 2}]}
        )

    @staticmethod
    def statement(effect: str, *actions: str) -> str:
        """Return a policy of one statement."""
        statement = {"Effect": effect, "Action": actions, "Resource": "*"}
        return json.dumps({"Version": "2012-10-17", "Statement": [statement]})

    def add_role(self, name: str, *policies: str) -> str:
        """Make a user with policies, and a profile for it. Return the name of the profile."""
        iam = self.client("iam", "us-east-1")
        iam.create_user(UserName=name)
        if policies:
            # moto calls the actions of CloudWatch by the name of its endpoint.
            policies += (self.statement("Allow", "monitoring:ListMetrics", "monitoring:GetMetricData"),)
        for number, document in enumerate(policies):
            iam.put_user_policy(UserName=name, PolicyName=f"policy-{number}", PolicyDocument=document)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        self.add_profile(name, key["AccessKeyId"], key["SecretAccessKey"])
        return name

    def add_profile(self, name: str, key_id: str, secret: str) -> None:
        """Add a profile to the configuration file."""
        with (self.folder / "config").open("a") as config:
            config.write(
                f"[profile {name}]\nregion = {REGIONS[0]}\nendpoint_url = {self.endpoint}\n"
                f"aws_access_key_id = {key_id}\naws_secret_access_key = {secret}\n"
                "s3 =\n    addressing_style = path\n\n"
            )


@contextmanager
def moto_account(folder: Path) -> Iterator[MotoAccount]:
    """Start moto's server with an empty account that has three regions enabled."""
    port = free_port()
    (folder / "images.json").write_text("[]")
    argv = [sys.executable, "-W", "ignore", SERVER, str(port), folder / "images.json"]
    running = MotoAccount(f"http://127.0.0.1:{port}", folder, start("moto", argv, log=folder / "moto.log"))
    try:
        running.child.wait_until(lambda: _answers(running.endpoint), seconds=60)
        yield running
    finally:
        running.child.stop()


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(f"{endpoint}/moto-api/data.json", timeout=5).close()
    except OSError:
        return False
    return True
