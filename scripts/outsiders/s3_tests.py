"""ceph's s3-tests: about a thousand tests of S3, which leave buckets behind if nobody cleans up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from scripts.binaries import cache_dir, say
from scripts.outsiders.bucket_move import BucketMove, buckets_of
from scripts.outsiders.suite import Context, Skipped, SuiteRow
from scripts.servers import KMS_KEY, S3Server

_VARIABLE = "OUTSIDERS_S3_TESTS"
_FILES = ("s3tests/functional/test_s3.py", "s3tests/functional/test_headers.py")
_WITHOUT = "not lifecycle and not logging and not select"
"""These wait for what a MinIO does once a day, or for what it does not have."""
_PACKAGES = (
    "boto3",
    "munch",
    "isodate",
    "requests",
    "pytz",
    "httplib2",
    "pytest",
    "pytest-timeout",
    "PyYAML",
    "lxml",
)
_SHARE = 0.5
"""Of the time that a run may take, so much goes to filling buckets."""
_FILL_SECONDS = 900.0
_PLUGIN = '''
"""Leave the buckets of each test as they are."""
import s3tests.functional


def _leave(*_, **__):
    """Remove nothing."""


s3tests.functional.nuke_prefixed_buckets = _leave
s3tests.functional.teardown = _leave
'''
_SECTIONS = ("s3 main", "s3 alt", "s3 tenant", "iam", "iam root", "iam alt root")


class S3Tests:
    """The tests fill a MinIO that encrypts; their buckets are moved to another one."""

    name = "s3-tests"
    origin = f"ceph's s3-tests, from the checkout of github.com/ceph/s3-tests that {_VARIABLE} names"

    def obtain(self) -> Path | Skipped:
        """Return the checkout."""
        checkout = os.environ.get(_VARIABLE)
        if not checkout:
            return Skipped(f"set {_VARIABLE} to a checkout of github.com/ceph/s3-tests")
        if not (Path(checkout) / "s3tests/functional/test_s3.py").exists():
            return Skipped(f"{_VARIABLE}={checkout}: there is no s3tests/functional/test_s3.py in it")
        return Path(checkout)

    def run(self, context: Context) -> Iterable[SuiteRow]:
        """Run the tests, then move the buckets that they leave."""
        source, destination = (
            context.servers.minio(name, encrypts=True, tls=True)
            for name in ("outsiders-old", "outsiders-new")
        )
        yield _fill(context, source)
        yield from BucketMove(context, source, destination).run(buckets_of(source))


def _fill(context: Context, server: S3Server) -> SuiteRow:
    """Run the slice's tests; how they end is the server's affair."""
    left = context.seconds_left
    seconds = _FILL_SECONDS if left is None else left * _SHARE
    directory = context.scratch / "s3-tests"
    directory.mkdir()
    (directory / "leave_buckets.py").write_text(_PLUGIN)
    (directory / "s3tests.conf").write_text(_settings(server))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {
        "S3TEST_CONF": str(directory / "s3tests.conf"),
        "PYTHONPATH": f"{directory}:{context.material}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    pytest = [str(_python()), "-m", "pytest", "-p", "no:cacheprovider"]
    listed = subprocess.run(
        [*pytest, "--collect-only", "-q", *_FILES, "-k", _WITHOUT],
        cwd=context.material,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    tests = context.choose([line for line in listed.stdout.splitlines() if "::" in line])
    (directory / "tests").write_text("\n".join(tests))
    log = directory / "log"
    with log.open("w") as out:
        child = subprocess.Popen(
            [*pytest, "-v", "-p", "leave_buckets", "--timeout=20", f"@{directory / 'tests'}"],
            cwd=context.material,
            env=environment,
            stdout=out,
            stderr=out,
        )
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    ends = Counter(re.findall(r"::\S+ ([A-Z]+) ", log.read_text(errors="replace")))
    result_text = ", ".join(f"{count} {word.lower()}" for word, count in ends.most_common())
    return SuiteRow(
        "filling buckets",
        skipped=f"{len(tests)} tests: {result_text}; {len(buckets_of(server))} buckets to be moved",
    )


def _python() -> Path:
    """Return the Python of an environment with what the tests need; made once."""
    home = cache_dir() / "outsiders" / "s3-tests-python"
    python = home / "bin/python"
    if not (home / "ready").exists():
        say("installing what s3-tests needs ...")
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "--quiet", "install", *_PACKAGES], check=True)
        (home / "ready").touch()
    return python


def _settings(server: S3Server) -> str:
    """Return the suite's settings: all its users are one."""
    url = urlsplit(server.endpoint)
    user = f"access_key = {server.access_key}\nsecret_key = {server.secret_key}\n"
    user += f"kms_keyid = {KMS_KEY}\nkms_keyid2 = {KMS_KEY}\n"
    user += "display_name = one\nuser_id = one\nemail = one@example.com\ntenant = one\n"
    head = f"[DEFAULT]\nhost = {url.hostname}\nport = {url.port}\nis_secure = True\nssl_verify = False\n"
    head += "[fixtures]\nbucket prefix = t-{random}-\n"
    return head + "".join(f"[{name}]\n{user}" for name in _SECTIONS)


SUITE = S3Tests()
