"""``make handover``: a host keeps its promise, on this machine: two roles, two MinIOs, one granted credential.

The provider holds a bundle in a bucket with Object Lock and grants it to the customer. The customer fetches it with
nothing but that, and signs a receipt. The provider acknowledges it, waits for the clock, releases, erases, and
certifies. A timestamp authority of this machine says when the bundle was there (RFC 3161). Every step is a printed
command, run as a process of its own with the configuration of its role.
"""

from __future__ import annotations

import argparse
import base64
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from scripts.demo_report import heading, say
from scripts.process import ServerError
from scripts.servers import S3Server, Servers, environment_for
from scripts.timestamp_authority import Authority, serving

MOVEOUT = Path(sys.executable).parent / "moveout"
MARK = ".moveout-handover"
HELD = "preserved"
CONTRACT = """\
version = 1
id = "contract"
title = "The contract between the host and Acme"
source = "clause 9 of the contract"
applies = "Acme"

[[rule]]
id = "retrieval"
article = "clause 9"
says = "The data stays for {seconds} seconds after the customer has received it."
kind = "not-before"
start = ["acknowledged"]
event = ["erasing", "erased"]
period = "{seconds} seconds"
"""
CASE = """\
[transfer]
location = "s3://{bucket}/acme?profile={profile}"

[custody]
key = "host.key"
signers = "signers"
timestamp = "{timestamp}"
release_keys = ["{host}", "{counsel}"]
release_quorum = 2
"""


def _profile(server: S3Server) -> str:
    """Return the section of an AWS configuration by which a server is reached."""
    return (
        f"[profile {server.profile}]\nregion = us-east-1\nendpoint_url = {server.endpoint}\n"
        f"aws_access_key_id = {server.access_key}\naws_secret_access_key = {server.secret_key}\n"
        "s3 =\n    addressing_style = path\n\n"
    )


class HandoverError(Exception):
    """A step did not end as it should; the message says which and how."""


Execute: TypeAlias = Callable[[Sequence[str], Path, Mapping[str, str]], int]
"""Runs a program in a directory and with an environment; returns its exit code."""


def as_process(argv: Sequence[str], directory: Path, environment: Mapping[str, str]) -> int:
    """Run a program in the foreground."""
    return subprocess.run(argv, cwd=directory, env=environment, check=False).returncode


@dataclass(frozen=True, slots=True)
class Role:
    """Somebody with a directory and a configuration of his own."""

    name: str
    directory: Path
    environment: Mapping[str, str]
    execute: Execute

    def run(self, *arguments: str, code: int = 0) -> None:
        """Run a moveout command in the foreground. Raises ``HandoverError`` unless it ends with ``code``."""
        say(f"{self.name}$ {shlex.join(['moveout', *arguments])}", bold=True)
        self._run([str(MOVEOUT), *arguments], code)

    def run_other(self, line: str) -> None:
        """Run a line of the shell."""
        say(f"{self.name}$ {line}", bold=True)
        self._run(["bash", "-c", line], 0)

    def _run(self, argv: Sequence[str], code: int) -> None:
        sys.stdout.flush()
        status = self.execute(argv, self.directory, self.environment)
        if status != code:
            raise HandoverError(f"{self.name}: it ended with {status}, not {code}: {shlex.join(argv)}")


class Handover:
    """The story in one working directory. ``wait_seconds``: so long the contract keeps the data after the receipt."""

    def __init__(
        self,
        work: Path,
        provider: S3Server,
        customer: S3Server,
        environment: Mapping[str, str],
        authority: Authority,
        *,
        wait_seconds: int,
        execute: Execute = as_process,
    ) -> None:
        self._execute, self._authority = execute, authority
        self.work, self.wait_seconds = work, wait_seconds
        self.bucket = f"{HELD}-{os.getpid()}-{time.time_ns() % 10**6}"
        self.received = self.bucket.replace(HELD, "received")
        self.provider = self._role("host", provider, environment)
        self.customer = self._role("acme", customer, environment)
        self.counsel = self._role("counsel", None, environment)
        self.held = f"s3://{self.bucket}/acme?profile={provider.profile}"
        self.granted = f"s3://{self.bucket}/acme?profile=acme-grant"
        self.arrived = f"s3://{self.received}/acme?profile={customer.profile}"
        self._servers = (provider, customer)

    def _role(self, name: str, server: S3Server | None, environment: Mapping[str, str]) -> Role:
        """Give a role a directory with nothing but the profile of its own server, if it has one."""
        directory = self.work / name
        directory.mkdir(parents=True)
        config = directory / "aws-config"
        config.touch(mode=0o600)
        if server:
            config.write_text(_profile(server))
        role_environment = {
            **environment,
            "AWS_CONFIG_FILE": str(config),
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }
        return Role(name, directory, role_environment, self._execute)

    def tell(self) -> None:
        """Do all of it."""
        self.prepare()
        self.hold()
        self.grant()
        self.receive()
        self.acknowledge()
        self.erase()

    def prepare(self) -> None:
        """Fill the host, make keys, write the case."""
        heading("A host with a customer's bucket, and a promise to keep")
        provider, customer = (server.client() for server in self._servers)
        media = f"media-{self.bucket}"
        provider.create_bucket(Bucket=media)
        for number in range(40):
            provider.put_object(Bucket=media, Key=f"posts/{number:03d}.txt", Body=b"post %d\n" % number * 50)
        provider.create_bucket(Bucket=self.bucket, ObjectLockEnabledForBucket=True)
        provider.put_object(Bucket=self.bucket, Key="another-customer", Body=b"not yours")
        customer.create_bucket(Bucket=self.received)
        self.provider.run("keys", "init", "host.key", "--name", "host")
        self.counsel.run("keys", "init", "counsel.key", "--name", "counsel")
        self.customer.run("keys", "init", "acme.key", "--name", "acme")
        say("(the public halves change hands)")
        lines = [
            self._public(self.provider, "host"),
            self._public(self.counsel, "counsel"),
            self._public(self.customer, "acme"),
        ]
        root = (self._authority.directory / "ca.pem").read_text()
        for role in (self.provider, self.customer):
            (role.directory / "signers").write_text("".join(lines))
            (role.directory / "authority.pem").write_text(root)
        fingerprints = [self._fingerprint(self.provider, "host"), self._fingerprint(self.counsel, "counsel")]
        profile = self._servers[0].profile
        case = CASE.format(
            bucket=self.bucket,
            profile=profile,
            host=fingerprints[0],
            counsel=fingerprints[1],
            timestamp=self._authority.url,
        )
        (self.provider.directory / "case.toml").write_text(case)
        (self.provider.directory / "contract.toml").write_text(CONTRACT.format(seconds=self.wait_seconds))
        self.provider.run(
            "export", f"media=s3://{media}?profile={profile}", "--to", "bundle", "-c", "case.toml", "-q"
        )
        self.provider.run("transfer", "bundle", self.held, "--key", "host.key", "-q")

    def hold(self) -> None:
        """Nothing can be removed any more."""
        heading("The host holds the bundle: every version is locked, and each lock read back")
        reason = "the customer was shut out; its data is preserved"
        self.provider.run(
            "hold", "place", "-c", "case.toml", "--until", "30d", "--legal", "--reason", reason, "-q"
        )
        self.provider.run("erase", "-c", "case.toml", "--rules", "contract.toml", "--yes", code=4)

    def grant(self) -> None:
        """The customer, and nobody else, may read it."""
        heading("The customer may read this bundle, and nothing else")
        self.provider.run(
            *("grant", "create", "-c", "case.toml", "--to", "acme-grant", "--expires", "2h", "-q"),
            *("--page", "grant.html"),
        )
        say("(grant-acme-grant.ini goes to the customer, who adds it to the AWS configuration)")
        text = (self.provider.directory / "grant-acme-grant.ini").read_text()
        with (self.customer.directory / "aws-config").open("a") as file:
            file.write(text)
        self.customer.run("grant", "test", self.granted, "--outside", "another-customer", "-q")

    def receive(self) -> None:
        """The customer fetches it and signs for it."""
        heading("The customer fetches it, checks whose it is, and signs a receipt")
        self.customer.run("transfer", self.granted, self.arrived, "--key", "acme.key", "-q")
        self.customer.run(
            *("receive", self.arrived, "--signers", "signers", "--key", "acme.key", "--to", "mail", "-q"),
            *("--page", "receipt.html"),
        )
        say("(receipt.html is the receipt as a page to print)")
        say("(the files in mail/ go to the host)")
        shutil.copytree(self.customer.directory / "mail", self.provider.directory / "mail")

    def acknowledge(self) -> None:
        """The provider counter-signs, and both have both."""
        heading("The host acknowledges the receipt; either side can show both")
        name = next((self.provider.directory / "mail").glob("receipt-*.json")).name
        for location in (self.held, "bundle"):
            self.provider.run("acknowledge", location, f"mail/{name}", "-c", "case.toml")
        shutil.copytree(
            self.provider.directory / "mail", self.customer.directory / "mail", dirs_exist_ok=True
        )
        self.customer.run("custody", "add", self.arrived, f"mail/{name}")
        self.customer.run("custody", "verify", self.arrived, "--signers", "signers", "--with", self.granted)
        key = self._id("host")
        self.customer.run_other(
            f"ssh-keygen -Y verify -f signers -I host -n moveout-document -s mail/{name}.{key}.sig < mail/{name}"
        )

    def erase(self) -> None:
        """The provider waits, releases, erases, certifies."""
        heading("The clock, the release by two keys, and a provable end")
        self.provider.run("clock", "-c", "case.toml", "--rules", "contract.toml")
        release = ("hold", "release", "-c", "case.toml")
        self.provider.run(*release, "--reason", "received", "--to", "mail", code=3)
        say("(the release in mail/ goes to counsel, who signs it and sends it back)")
        (file,) = (self.provider.directory / "mail").glob("release-*.json")
        (self.counsel.directory / "mail").mkdir()
        shutil.copy(file, self.counsel.directory / "mail")
        self.counsel.run("custody", "sign", f"mail/{file.name}", "--key", "counsel.key", "--yes")
        shutil.copytree(self.counsel.directory / "mail", self.provider.directory / "mail", dirs_exist_ok=True)
        self.provider.run(*release, f"mail/{file.name}", "-q")
        self.provider.run("grant", "revoke", "-c", "case.toml", "--to", "acme-grant")
        self.customer.run("verify", self.granted, "-q", code=4)
        say(f"(the contract wants {self.wait_seconds} s between receipt and erasure)")
        time.sleep(self.wait_seconds + 1)
        certificate = ("--page", "certificate.html")
        rules = ("-c", "case.toml", "--rules", "contract.toml", "--yes", "-q", "--to", "mail")
        self.provider.run("erase", *rules, *certificate)
        self.provider.run("erase", "bundle", *rules)
        self.provider.run("clock", "-c", "case.toml", "--rules", "contract.toml")
        self.provider.run("custody", "show", "-c", "case.toml")
        self.provider.run("custody", "verify", "-c", "case.toml")
        say("(the certificates in mail/ go to the customer)")
        for file in sorted((self.provider.directory / "mail").glob("erasure-*")):
            shutil.copy(file, self.customer.directory / "mail")
        for file in sorted((self.customer.directory / "mail").glob("erasure-*.json")):
            self.customer.run("custody", "add", self.arrived, f"mail/{file.name}")
        self.customer.run("custody", "verify", self.arrived, "--signers", "signers")
        authority = ("--timestamp-ca", "authority.pem")
        self.customer.run("verify", self.arrived, "--signers", "signers", *authority, "-q")

    def _public(self, role: Role, name: str) -> str:
        return f"{name} {(role.directory / f'{name}.key.pub').read_text()}"

    def _fingerprint(self, role: Role, name: str) -> str:
        file = role.directory / f"{name}.key.pub"
        shown = subprocess.run(["ssh-keygen", "-l", "-f", file], capture_output=True, text=True, check=True)
        return shown.stdout.split()[1]

    def _id(self, name: str) -> str:
        """Return the id that names a key's signatures: the first hex digits of its fingerprint."""
        text = self._fingerprint(self.provider, name).removeprefix("SHA256:")
        return base64.b64decode(text + "=").hex()[:16]


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="make handover", description="A host hands a bundle over, on this machine."
    )
    parser.add_argument(
        "--dir", type=Path, default=Path("handover-work"), help="where it happens (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    work = options.dir.resolve()
    if work.exists() and any(work.iterdir()) and not (work / MARK).exists():
        say(f"handover failed: {work} is not empty; name another directory with --dir", bold=True)
        return 1
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / MARK).touch()
    try:
        with Servers(work / "servers") as servers:
            provider, customer = servers.minio("host-s3"), servers.minio("acme-s3")
            environment = environment_for(servers)
            os.environ.clear()
            os.environ.update(environment)
            with serving(Authority(work / "authority")) as authority:
                Handover(work, provider, customer, environment, authority, wait_seconds=10).tell()
    except (HandoverError, ServerError) as error:
        say(f"\nhandover failed: {error}", bold=True)
        return 1
    except KeyboardInterrupt:
        return 130
    say("\nHeld, granted, received, acknowledged, released, erased; every step signed.", bold=True)
    shutil.rmtree(work / "servers", ignore_errors=True)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
