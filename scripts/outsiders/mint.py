"""MinIO's mint: test programs of many clients, which check a server. The buckets that they fill are moved."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.binaries import cache_dir, say
from scripts.outsiders.bucket_move import BucketMove, buckets_of
from scripts.outsiders.keeping_proxy import KeepingProxy
from scripts.outsiders.suite import Context, Skipped, SuiteRow
from scripts.servers import S3Server

_VARIABLE = "OUTSIDERS_MINT"
_PACKAGES = ("awscli", "s3cmd", "minio", "faker")
_BUILD_SECONDS = 900.0
_FILL_SECONDS = 600.0
_SHARE = 0.5
"""Of the time that a client may take, so much goes to filling buckets."""
_SIZES = {"": 1, "K": 2**10, "M": 2**20}
_POM = """<project><modelVersion>4.0.0</modelVersion><groupId>outsiders</groupId><artifactId>mint</artifactId>
<version>1</version><dependencies>{}</dependencies></project>
"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"

_GO_ON = "sed -i 's/[.]Fatal()/.Error()/' *.go"
"""Lets tests in Go go on after a failure."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client's test program. ``build`` and ``run`` are lines of a shell, in a directory of the client's own."""

    name: str
    run: str
    build: str = ""
    needs: Sequence[str] = ()
    """Programs."""
    repository: str = ""
    """Where its tests are, if not in mint: a checkout next to that of mint. ``$CHECKOUT`` is its path."""
    jars: Sequence[str] = ()
    """From Maven, into the directory ``jars``."""
    tls: bool = False
    """Whether its tests need a server with TLS, and trust any certificate."""


CLIENTS = (
    Client(
        "awscli",
        build=r"sed -E 's/^(\s*test_\w+) &&$/\1/' $MINT/run/core/awscli/test.sh > test.sh",
        run="bash test.sh http://$SERVER_ENDPOINT",
        needs=("jq",),
    ),
    Client("s3cmd", run="bash $MINT/run/core/s3cmd/test.sh"),
    Client("s3select", run="python $MINT/run/core/s3select/tests.py"),
    Client(
        "versioning",
        build=f"cp -r $MINT/build/versioning src && cd src && {_GO_ON} && go build -o ../tests .",
        run="./tests",
        needs=("go",),
    ),
    Client(
        "aws-sdk-go-v2",
        build=f"cp -r $MINT/run/core/aws-sdk-go-v2 src && cd src && {_GO_ON} && go build -o ../tests .",
        run="./tests",
        needs=("go",),
    ),
    Client(
        "aws-sdk-java-v2",
        build="mkdir classes && find $MINT/build/aws-sdk-java-v2 -name '*.java' | xargs javac -cp 'jars/*' -d classes",
        run="java -cp 'jars/*:classes' io.minio.awssdk.v2.tests.FunctionalTests",
        needs=("java", "javac", "mvn"),
        jars=(
            "software.amazon.awssdk:s3:2.38.1",
            "software.amazon.awssdk:netty-nio-client:2.38.1",
            "software.amazon.awssdk:aws-crt-client:2.38.1",
            "com.fasterxml.jackson.core:jackson-databind:2.20.0",
        ),
        tls=True,
    ),
    Client(
        "minio-py",
        run="PYTHONPATH=$CHECKOUT python $CHECKOUT/tests/functional/tests.py",
        repository="minio/minio-py",
    ),
    Client(
        "minio-go",
        build="cd $CHECKOUT && go build -o $OLDPWD/tests functional_tests.go",
        run="./tests",
        needs=("go",),
        repository="minio/minio-go",
    ),
    Client(
        "minio-js",
        build="cp -r $CHECKOUT src && cp $MINT/run/core/minio-js/minioreporter.js src && cd src"
        " && npm install --ignore-scripts --no-audit --no-fund",
        run="cd src && node_modules/.bin/mocha --no-config --exit -r source-map-support/register -r ./babel-register.js"
        " -R minioreporter tests/functional/functional-tests.js",
        needs=("node", "npm"),
        repository="minio/minio-js",
    ),
    Client(
        "minio-java",
        build="mkdir classes && find $CHECKOUT/{api,adminapi}/src/main $CHECKOUT/functional -name '*.java'"
        " | xargs javac -nowarn -cp 'jars/*' -d classes",
        run="java -cp 'jars/*:classes' FunctionalTest http://$SERVER_ENDPOINT $ACCESS_KEY $SECRET_KEY $SERVER_REGION",
        needs=("java", "javac", "mvn"),
        repository="minio/minio-java",
        jars=(
            "com.carrotsearch.thirdparty:simple-xml-safe:2.7.1",
            "com.google.guava:guava:33.6.0-jre",
            "com.squareup.okhttp3:okhttp-jvm:5.3.2",
            "com.fasterxml.jackson.core:jackson-databind:2.21.2",
            "com.fasterxml.jackson.datatype:jackson-datatype-jsr310:2.21.2",
            "org.bouncycastle:bcprov-jdk18on:1.84",
            "org.apache.commons:commons-compress:1.28.0",
            "commons-codec:commons-codec:1.21.0",
            "org.xerial.snappy:snappy-java:1.1.10.8",
            "com.github.spotbugs:spotbugs-annotations:4.2.2",
            "org.junit.jupiter:junit-jupiter-api:5.11.4",
        ),
    ),
    Client(
        "mc",
        build="cd $CHECKOUT && go build -o $OLDPWD/mc .",
        run="bash $CHECKOUT/functional-tests.sh",
        needs=("go", "jq"),
        repository="minio/mc",
    ),
)
"""Not here: ``healthcheck`` leaves no bucket, and the tests of Ruby, PHP and .NET need registries of their own."""


class Mint:
    """Each client fills a MinIO; its buckets are moved to another one."""

    name = "mint"
    origin = f"MinIO's mint, from the checkout of github.com/minio/mint that {_VARIABLE} names"

    def obtain(self) -> Path | Skipped:
        """Return the checkout."""
        checkout = os.environ.get(_VARIABLE)
        if not checkout:
            return Skipped(f"set {_VARIABLE} to a checkout of github.com/minio/mint")
        if not (Path(checkout) / "run/core").is_dir():
            return Skipped(f"{_VARIABLE}={checkout}: there is no run/core in it")
        return Path(checkout).resolve()

    def run(self, context: Context) -> Iterable[SuiteRow]:
        """Run each client's tests, then move the buckets as they were before something was deleted from them."""
        destination = context.servers.minio("outsiders-new")
        for client in context.choose(CLIENTS):
            if context.out_of_time:
                yield SuiteRow(client.name, skipped="the time is used up")
                continue
            if missing := _missing(client, context.material):
                yield SuiteRow(client.name, skipped=missing)
                continue
            for row in _run(client, context, destination):
                row.variant = f"{client.name}: {row.variant}"
                yield row


def _missing(client: Client, mint: Path) -> str:
    """Return what a client lacks here; empty if nothing."""
    for program in client.needs:
        if not shutil.which(program):
            return f"it needs {program}, which is not installed"
    if client.repository and not _checkout(client, mint).is_dir():
        return f"there is no checkout of github.com/{client.repository} next to {mint}"
    return ""


def _checkout(client: Client, mint: Path) -> Path:
    return mint.with_name(client.repository.partition("/")[2])


def _run(client: Client, context: Context, destination: S3Server) -> Iterator[SuiteRow]:
    directory = context.scratch / "mint" / client.name
    directory.mkdir(parents=True)
    environment = _environment(client, context)
    if client.jars:
        (directory / "pom.xml").write_text(_pom(client.jars))
        fetch = "mvn --quiet --batch-mode dependency:copy-dependencies -DoutputDirectory=jars && "
    else:
        fetch = ""
    if fetch or client.build:
        built = _shell(fetch + client.build, directory, environment, _BUILD_SECONDS)
        if built != 0:
            yield SuiteRow("build", skipped=f"it ends with {built}: {_end_of_log(directory)}")
            return
    source = context.servers.minio(f"outsiders-{client.name}", tls=client.tls)
    kept_name = f"outsiders-kept-{client.name}"
    with KeepingProxy(source, context.servers.directory / kept_name / "data") as proxy:
        variables = {
            "SERVER_ENDPOINT": proxy.netloc,
            "ACCESS_KEY": source.access_key,
            "SECRET_KEY": source.secret_key,
            "AWS_ACCESS_KEY_ID": source.access_key,
            "AWS_SECRET_ACCESS_KEY": source.secret_key,
            "HOME": str(directory),
        }
        left = context.seconds_left
        seconds = _FILL_SECONDS if left is None else left * _SHARE
        ended = _shell(client.run, directory, environment | variables, seconds)
        proxy.keep_all()
    source.child.stop()
    kept = context.servers.minio(kept_name)
    yield SuiteRow(
        "tests", skipped=f"{_results(directory, ended)}; {len(buckets_of(kept))} buckets to be moved"
    )
    yield from BucketMove(replace(context, scratch=directory), kept, destination).run(buckets_of(kept))
    kept.child.stop()


def _environment(client: Client, context: Context) -> dict[str, str]:
    data = context.scratch / "mint" / "data"
    if not data.exists():
        _make_data(data, (context.material / "create-data-files.sh").read_text())
    python = _python()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return environment | {
        "PATH": f"{python.parent}:{environment['PATH']}",
        "MINT": str(context.material),
        "CHECKOUT": str(_checkout(client, context.material)) if client.repository else "",
        "MINT_DATA_DIR": str(data),
        "DATA_DIR": str(data),
        "MINT_MODE": "full",
        "AWS_DEFAULT_REGION": "us-east-1",
        "SERVER_REGION": "us-east-1",
        "ENABLE_HTTPS": str(int(client.tls)),
        "ENABLE_VIRTUAL_STYLE": "0",
        "RUN_ON_FAIL": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _shell(lines: str, directory: Path, environment: Mapping[str, str], seconds: float) -> int | None:
    """Run lines of a shell, and return the exit code; None where the time ended them."""
    with (directory / "log").open("w") as log:
        child = subprocess.Popen(
            ["bash", "-c", lines],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return None


def _results(directory: Path, ended: int | None) -> str:
    """Return in one line how a client's tests ended: that is the server's affair."""
    log = (directory / "log").read_text(errors="replace")
    ends = Counter(word.upper() for word in re.findall(r'"status": ?"(\w+)"', log))
    counts = ", ".join(f"{count} {word}" for word, count in ends.most_common()) or "no result"
    return counts if ended == 0 else f"{counts}, exit code {ended}: {_end_of_log(directory)}"


def _end_of_log(directory: Path) -> str:
    lines = (directory / "log").read_text(errors="replace").strip().splitlines()
    return lines[-1][-300:] if lines else "no output"


def _pom(jars: Sequence[str]) -> str:
    return _POM.format("".join(_DEPENDENCY.format(*jar.split(":")) for jar in jars))


def _make_data(directory: Path, script: str) -> None:
    """Make the files that mint's script makes."""
    directory.mkdir(parents=True)
    for name, number, unit in re.findall(r'data_file_map\["([^"]+)"\]="(\d+)([KM]?)"', script):
        (directory / name).write_bytes(secrets.token_bytes(int(number) * _SIZES[unit]))


def _python() -> Path:
    """Return the Python of an environment with the clients of PyPI; made once."""
    home = cache_dir() / "outsiders" / "mint-python"
    python = home / "bin/python"
    if not (home / "ready").exists():
        say("installing the clients of PyPI for mint")
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "--quiet", "install", *_PACKAGES], check=True)
        (home / "ready").touch()
    return python


SUITE = Mint()
