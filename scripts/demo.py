"""``make demo``: a customer leaves a host, on this machine: real servers, a kill half-way, proof at the end.

Everything that ``moveout`` does here is a printed command, run as a process of its own with nothing but a
case file, AWS profiles and a pgpass file. What is measured is measured from outside: the clock, the servers'
own counters, the disk.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from scripts import proof, seed
from scripts.demo_report import Figures, heading, megabytes, say, shown
from scripts.metrics import received_bytes
from scripts.postgresql import PostgresServer
from scripts.process import ServerError
from scripts.servers import S3Server, Servers, environment_for

MOVEOUT = Path(sys.executable).parent / "moveout"
MARK = ".moveout-demo"
BWLIMIT = "40M"
"""What the first transfer is held to, so that there is a half-way to be killed at on a fast machine."""
KILL_AT = 0.5


class DemoError(Exception):
    """A step did not do what it should; the message says which and how."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """The old host and the new one, running, and the variables that reach them."""

    old_db: PostgresServer
    old_s3: S3Server
    new_db: PostgresServer
    new_s3: S3Server
    environment: dict[str, str]


class Demo:
    """The story, step by step, in one working directory."""

    def __init__(self, work: Path, hosts: Hosts) -> None:
        self.work = work
        self.hosts = hosts
        self.bundle = work / "bundle"
        self.figures = Figures()
        self.old_url = hosts.old_db.url_of("plaza")
        self.new_url = hosts.new_db.url_of("plaza")

    def seed(self) -> None:
        """Fill the old host, and make room on the new one."""
        heading("The old host holds a social network; the new host is empty")
        self.hosts.old_db.database("plaza")
        self.hosts.new_db.database("plaza")
        with self.figures.timed("seed"), ThreadPoolExecutor(1) as pool:
            rows = pool.submit(seed.seed_database, self.old_url)
            seeded = seed.seed_bucket(self.hosts.old_s3.profile, "plaza-media", list(seed.objects()))
            self.figures.rows, self.figures.tables = rows.result()
        self.figures.objects, self.figures.object_bytes = seeded
        seed.make_buckets(self.hosts.new_s3.profile, "evacuated", "plaza-media")
        say(f"  old host   {self.old_url}")
        say(f"             {self.figures.rows:,} rows in {self.figures.tables} tables")
        say("             s3://plaza-media?profile=old-s3")
        say(f"             {self.figures.objects_words()}")
        say(f"  new host   {self.new_url}, empty")
        say("             s3://evacuated?profile=new-s3, empty")
        say("             s3://plaza-media?profile=new-s3, empty")
        say(f"  seeded in {self.figures.seconds['seed']:.0f} s")

    def write_case(self) -> None:
        """Write the case file that a user would write."""
        deadline = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=30)
        text = CASE.format(deadline=deadline.isoformat(), old=self.old_url, new=self.new_url)
        (self.work / "moveout.toml").write_text(text)
        heading("One file says what leaves, by when, and where it goes")
        say(f"$ cat moveout.toml\n{text}", dim=True)

    def move(self) -> None:
        """Plan, export, transfer with a kill half-way, verify, restore, verify what was restored."""
        heading("What is there, and will it be out in time?")
        self.run("plan", "plan")
        heading("Everything leaves the old host as one bundle")
        self.run("export", "export")
        files = [path for path in self.bundle.rglob("*") if path.is_file()]
        self.figures.bundle_files = len(files)
        self.figures.bundle_bytes = sum(path.stat().st_size for path in files)
        heading("The bundle travels, and the machine that carries it dies half-way")
        self.killed_transfer()
        self.run("status", "status")
        heading("The same command again: it goes on where it was")
        before = received_bytes(self.hosts.new_s3.endpoint)
        self.run("transfer", "transfer")
        self.figures.sent_after_kill_bytes = received_bytes(self.hosts.new_s3.endpoint) - before
        heading("Is every byte of it on the new host?")
        self.run("verify", "verify", "--level", "full")
        heading("Back to life on the new host")
        self.run("restore", "restore")
        heading("Has all arrived as it left? All of it is read back")
        self.run(
            "verify --against",
            *("verify", "--against", f"app={self.new_url}"),
            *("--against", "media=s3://plaza-media?profile=new-s3"),
        )

    def killed_transfer(self) -> None:
        """Start a transfer and kill it once the new host has received half of the bundle."""
        destination = int(self.figures.bundle_bytes * KILL_AT)
        before = received_bytes(self.hosts.new_s3.endpoint)
        argv = announce(["transfer", "--bwlimit", BWLIMIT])
        with self.figures.timed("transfer until killed"):
            process = subprocess.Popen(argv, cwd=self.work, env=self.hosts.environment)
            try:
                while received_bytes(self.hosts.new_s3.endpoint) - before < destination:
                    if process.poll() is not None:
                        raise DemoError(
                            f"the transfer ended ({process.returncode}) before it could be killed"
                        )
                    time.sleep(0.05)
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait()
        if sys.stdout.isatty():
            print("\033[?25h", end="")  # the killed process had hidden the cursor
        say(f"\n$ kill -9 {process.pid}", bold=True)
        time.sleep(0.5)  # requests that the server already had in hand end, and are counted
        self.figures.sent_before_kill_bytes = received_bytes(self.hosts.new_s3.endpoint) - before
        say(f"  the new host had received {megabytes(self.figures.sent_before_kill_bytes)}")

    def run(self, step: str, *arguments: str) -> None:
        """Run a moveout command in the foreground, and measure it."""
        with self.figures.timed(step):
            run_command(arguments, work=self.work, environment=self.hosts.environment)

    def prove(self) -> list[str]:
        """Compare both hosts without moveout, run the four commands on the bundle; return what was found."""
        heading("The same question, asked without moveout")
        with self.figures.timed("proof"):
            proof_lines = [
                proof.compare_databases(self.old_url, self.new_url),
                proof.compare_schemas(self.hosts.old_db.bin_dir, self.old_url, self.new_url),
                proof.compare_buckets(self.hosts.old_s3.profile, self.hosts.new_s3.profile, "plaza-media"),
            ]
        for line in proof_lines:
            say(f"  {line}")
        heading("Anyone can check the bundle with tools that know nothing of moveout")
        say(f"$ cd {shown(self.bundle)}", bold=True)
        for command in proof.commands(self.bundle):
            say(f"$ {command.shown}", bold=True)
            say(proof.run_command(command, self.bundle))
        return proof_lines


def announce(arguments: Sequence[str]) -> list[str]:
    """Print a moveout command as a user types it, return it as a process takes it."""
    command = [arguments[0], "-c", "moveout.toml", *arguments[1:]]
    say(f"$ {shlex.join(['moveout', *command])}", bold=True)
    return [str(MOVEOUT), *command]


def run_command(words: Sequence[str], *, work: Path, environment: Mapping[str, str]) -> None:
    """Run a moveout command in the foreground. Raises ``DemoError`` unless it ends with 0."""
    argv = announce(words)
    status = subprocess.run(argv, cwd=work, env=environment, check=False).returncode
    if status != 0:
        raise DemoError(f"`{shlex.join(['moveout', *argv[1:]])}` ended with {status}")


CASE = """\
[case]
name = "plaza"
deadline = {deadline}

[[source]]
name = "app"
url = "{old}"

[[source]]
name = "media"
url = "s3://plaza-media?profile=old-s3"

[bundle]
location = "bundle"

[transfer]
location = "s3://evacuated/plaza?profile=new-s3"

[[destination]]
source = "app"
url = "{new}"

[[destination]]
source = "media"
url = "s3://plaza-media?profile=new-s3"
"""


def _fresh_directory(work: Path) -> None:
    """Make the working directory, dropping what an earlier demo left; nobody else's directory is touched."""
    if work.exists() and any(work.iterdir()):
        if not (work / MARK).exists():
            raise DemoError(
                f"{work} is not empty and not an earlier demo's; name another directory with --dir"
            )
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    (work / MARK).touch()


def _tell(work: Path, servers: Servers, *, keep: bool) -> None:
    names = ("old-db", "new-db", "old-s3", "new-s3")
    say("Starting two PostgreSQLs and two MinIOs on this machine ...")
    old_db, new_db = (servers.postgres(name) for name in names[:2])
    old_s3, new_s3 = (servers.minio(name) for name in names[2:])
    environment = environment_for(servers)
    os.environ.clear()
    os.environ.update(environment)
    demo = Demo(work, Hosts(old_db, old_s3, new_db, new_s3, environment))
    demo.seed()
    started = time.monotonic()
    demo.write_case()
    demo.move()
    demo.figures.summary(demo.prove(), demo.bundle)
    say(f"\n  The move and its proof took {time.monotonic() - started:.0f} s.")
    if keep:
        servers.write_environment()
        say(f"\n  The servers stay up until Ctrl-C. In another terminal: . {shown(work)}/servers/env.sh")
        signal.pause()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="make demo", description="A whole move on this machine.")
    parser.add_argument(
        "--dir", type=Path, default=Path("demo-work"), help="where it happens (default: %(default)s)"
    )
    parser.add_argument("--keep", action="store_true", help="leave the servers up afterwards, until Ctrl-C")
    options = parser.parse_args(argv)
    work = options.dir.resolve()
    try:
        _fresh_directory(work)
        with Servers(work / "servers") as servers:
            _tell(work, servers, keep=options.keep)
    except (DemoError, ServerError, proof.DifferenceError) as error:
        say(f"\ndemo failed: {error}", bold=True)
        return 1
    except KeyboardInterrupt:
        return 130
    shutil.rmtree(work / "servers", ignore_errors=True)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
