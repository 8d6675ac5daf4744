"""MinIO's mint: scripts of clients that check a server. Those of awscli are run, with what removes buckets left out."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from scripts.binaries import cache_dir, say
from scripts.outsiders.bucket_move import BucketMove, buckets_of
from scripts.outsiders.suite import Context, Skipped, SuiteRow
from scripts.servers import S3Server

_VARIABLE = "OUTSIDERS_MINT"
_SCRIPT = "run/core/awscli/test.sh"
_FILL_SECONDS = 600.0
_SHARE = 0.5
_UNITS = {"b": 1, "kB": 2**10, "MB": 2**20}
_LARGEST_BYTES = 70 * 2**20
_AWS = """#!/bin/bash
# Buckets and what is in them stay.
case " $* " in *" s3 rb "*|*" s3 rm "*|*" delete-bucket "*) exit 0;; esac
exec {python} -m awscli "$@"
"""


class Mint:
    """The scripts fill a MinIO; their buckets are moved to another one."""

    name = "mint"
    origin = f"MinIO's mint (awscli), from the checkout of github.com/minio/mint that {_VARIABLE} names"

    def obtain(self) -> Path | Skipped:
        """Return the checkout."""
        checkout = os.environ.get(_VARIABLE)
        if not checkout:
            return Skipped(f"set {_VARIABLE} to a checkout of github.com/minio/mint")
        if not (Path(checkout) / _SCRIPT).exists():
            return Skipped(f"{_VARIABLE}={checkout}: there is no {_SCRIPT} in it")
        if not shutil.which("jq"):
            return Skipped("its scripts need jq, which is not installed")
        return Path(checkout)

    def run(self, context: Context) -> Iterable[SuiteRow]:
        """Run the scripts, then move the buckets that they leave."""
        source, destination = context.servers.minio("outsiders-old"), context.servers.minio("outsiders-new")
        yield _fill(context, source)
        yield SuiteRow("clients other than awscli", skipped="each is built by mint's own container only")
        yield from BucketMove(context, source, destination).run(context.choose(buckets_of(source)))


def _fill(context: Context, server: S3Server) -> SuiteRow:
    """Run each test by itself; how it ends is the server's affair."""
    left = context.seconds_left
    directory = context.scratch / "mint"
    (directory / "bin").mkdir(parents=True)
    python = _python()
    aws = directory / "bin/aws"
    aws.write_text(_AWS.format(python=python))
    aws.chmod(0o755)
    script = (context.material / _SCRIPT).read_text()
    _make_data(directory / "data", script)
    tests = dict.fromkeys(re.findall(r"^(?:function )?(test_\w+)\s*\(\)", script, re.MULTILINE))
    script_start = re.sub(r"^_init .*$", "", script, flags=re.MULTILINE)
    (directory / "tests.sh").write_text("\n".join([script_start, f"_init {server.endpoint}", *tests]) + "\n")
    log = directory / "log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {
        "PATH": f"{directory / 'bin'}:{python.parent}:{environment['PATH']}",
        "MINT_DATA_DIR": str(directory / "data"),
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "ACCESS_KEY": server.access_key,
        "SECRET_KEY": server.secret_key,
        "SERVER_REGION": "us-east-1",
        "ENABLE_HTTPS": "0",
        "HOME": str(directory),
    }
    with log.open("w") as out:
        child = subprocess.Popen(
            ["bash", str(directory / "tests.sh")], cwd=directory, env=environment, stdout=out, stderr=out
        )
        try:
            child.wait(_FILL_SECONDS if left is None else left * _SHARE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    log_text = log.read_text(errors="replace")
    result_text = f"{log_text.count('PASS')} steps pass, {log_text.count('FAIL')} fail"
    return SuiteRow(
        "filling buckets", skipped=f"{result_text}; {len(buckets_of(server))} buckets to be moved"
    )


def _make_data(directory: Path, script: str) -> None:
    """Make the files that the script names, of the sizes that their names say."""
    directory.mkdir()
    for name, number, unit in set(re.findall(r"(datafile-([\d.]+)-(b|kB|MB))", script)):
        size_bytes = int(float(number) * _UNITS[unit])
        if size_bytes <= _LARGEST_BYTES:
            (directory / name).write_bytes(secrets.token_bytes(size_bytes))


def _python() -> Path:
    """Return the Python of an environment with awscli; made once."""
    home = cache_dir() / "outsiders" / "awscli-python"
    python = home / "bin/python"
    if not (home / "ready").exists():
        say("installing awscli for mint")
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "--quiet", "install", "awscli"], check=True)
        (home / "ready").touch()
    return python


SUITE = Mint()
