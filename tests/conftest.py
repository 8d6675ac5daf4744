"""Real servers for the tests, started when the first test asks for one and ended with the run."""

import gc
import os
import secrets
import signal
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

from exporters.engine import ENTRY_POINTS
from scripts.binaries import find_programs
from scripts.mariadb import MariadbServer, find_mariadb
from scripts.network.toxiproxy import Toxiproxy
from scripts.postgresql import PostgresServer
from scripts.process import ServerError
from scripts.servers import FOREIGN, S3Server, Servers
from tests.tools.memory_files import make_base_directory, remove_base_directory
from tests.tools.raw_s3 import raw_request
from tests.tools.tally import end_test, print_counts

ROOT = Path(__file__).parents[1]
LONGEST = (
    "tests/docs/test_tour.py",
    "tests/cluster/",
    "tests/discover/test_",
    "tests/follow/test_cutover.py",
    "tests/exporters/test_contract.py",
    "tests/exporters/postgres/test_resume.py",
    "tests/custody/test_releases.py",
    "tests/follow/test_delta.py",
    "tests/follow/test_definitions.py",
    "tests/changes/test_hostile_segments.py",
    "tests/restore/postgres/test_objects.py",
    "tests/sync/test_sync.py",
    "tests/sync/test_history.py",
    "tests/restore/objects/test_restore.py",
    "tests/custody/test_hold.py",
    "tests/discover/aws/",
    "tests/restore/mysql/changes/test_apply.py",
    "tests/cli/test_move.py",
    "tests/cli/test_incomplete.py",
    "tests/transfer/test_transfer.py",
    "tests/exporters/postgres/test_charset.py",
    "tests/exporters/objects/test_rotten.py",
    "tests/restore/postgres/test_restore.py",
    "tests/verify/test_row_repair.py",
    "tests/custody/test_grant.py",
    "tests/transfer/test_interruptions.py",
)
"""How the files begin that take longer than thirty seconds, the longest first."""
GO_SETTINGS = {"GOMAXPROCS": "1"}
"""What MinIO and other servers in Go are told. With one thread they take a sixth less processor time for the small
requests of tests.
"""
OF_A_TERMINAL = (
    "COLUMNS",
    "LINES",
    "FORCE_COLOR",
    "NO_COLOR",
    "PY_COLORS",
    "GITHUB_ACTIONS",
    "TTY_COMPATIBLE",
)
"""Variables of whoever starts the tests that would decide how commands print."""
TOGETHER = ("tests/cluster/", "tests/discover/test_")
"""How the files begin that share what takes long to start: a cluster, an old host."""


SERVERS = pytest.StashKey[Servers]()
BUCKETS = pytest.StashKey[list[tuple[S3Server, str]]]()
"""Those that tests have made, of the file that runs."""
BASE_DIRECTORY = pytest.StashKey[Path]()
LONG_TESTS = pytest.StashKey[list[str]]()
"""The names of the tests with the mark ``torture`` that were collected, also where the run leaves them out."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Refuse an environment that was made before pyproject.toml changed, and prepare the process."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    installed = {(entry.name, entry.value) for entry in entry_points(group=ENTRY_POINTS)}
    if not installed >= set(declared[ENTRY_POINTS].items()):
        raise pytest.UsageError(
            "the installed moveout is older than pyproject.toml; run:"
            " .venv/bin/python -m pip install --no-deps --no-build-isolation -e ."
        )
    settings.register_profile(
        "loaded",
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        derandomize=config.getoption("--hypothesis-seed") is None,  # no run fails by an example of its own
    )
    settings.load_profile("loaded")  # how fast a value is made says nothing on a machine that others use, too
    _prepare_process()
    _divide_imports(config)
    if config.option.basetemp is None and config.option.markexpr == "not torture":
        base = make_base_directory()
        if base is not None:
            config.stash[BASE_DIRECTORY] = base
            config.option.basetemp = str(base)


def _divide_imports(config: pytest.Config) -> None:
    """Let each process of a whole run begin with another share of the files.

    pytest compiles a test file when it is first imported, and keeps that on disk. All processes import all files: in
    the same order, each would compile them all at the same time.
    """
    worker = getattr(config, "workerinput", None)
    if worker is not None and [Path(one).resolve() for one in config.args] == [ROOT / "tests"]:
        files = sorted(map(str, (ROOT / "tests").rglob("test_*.py")))
        begin = len(files) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
        config.args[:] = files[begin:] + files[:begin]


def pytest_unconfigure(config: pytest.Config) -> None:
    """Free the memory that the run's files took."""
    if BASE_DIRECTORY in config.stash:
        remove_base_directory(config.stash[BASE_DIRECTORY])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes share the tests: two more than there are processors, since a test waits for servers
    and disks a third of its time.
    """
    return (os.cpu_count() or 1) + 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Return what gives files to processes, where a file is to stay in one."""
    return _FileScheduling(config, log) if config.getoption("dist") == "loadfile" else None


class _FileScheduling(LoadFileScheduling):
    """Gives each file to one process, and all files that share what takes long to start to the same one."""

    def _split_scope(self, nodeid: str) -> str:
        return next((files for files in TOGETHER if nodeid.startswith(files)), super()._split_scope(nodeid))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no process ends long after the others. All have one order."""
    config.stash[LONG_TESTS] = [item.nodeid for item in items if item.get_closest_marker("torture")]
    items.sort(key=lambda item: _place(item.nodeid.partition("::")[0]))


@cache
def _place(path: str) -> tuple[int, str]:
    """Return the place of a file among the longest ones; all others come after them, by their names."""
    places = (place for place, files in enumerate(LONGEST) if path.startswith(files))
    return next(places, len(LONGEST)), path


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the servers that are not there yet: that takes minutes, more than a test and its fixtures have together.
    Let the collector of garbage pass over what stays until the end: all modules, all tests.
    """
    if any("servers" in getattr(item, "fixturenames", ()) for item in session.items):
        with suppress(ServerError):  # each test says so, too
            for _ in find_programs(()):
                pass
    gc.collect()
    gc.freeze()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count what waits for the end of the test that it belongs to."""
    if report.when == "call" or report.failed:
        end_test(passed=report.passed)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the long tests did, in figures."""
    print_counts(terminalreporter)


def _prepare_process() -> None:
    """Collect garbage as seldom as the command does. Take Ctrl-C even where a shell has started the run in the
    background: it ignores it then, as would every process that a test interrupts. Print as without a terminal, at UTC.
    Keep what is compiled, as the Makefile does: else each run rewrites all tests anew, and each process all modules.
    """
    gc.set_threshold(100_000, 20, 50)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    for name in OF_A_TERMINAL:
        os.environ.pop(name, None)
    os.environ["TZ"] = "UTC"
    time.tzset()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the times of the tests' moves out of the history of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module", autouse=True)
def _own_data(pytestconfig: pytest.Config) -> Iterator[None]:
    """Drop the databases and buckets that the tests of a file have made: together they would fill the memory."""
    yield
    if SERVERS not in pytestconfig.stash:
        return
    for server in pytestconfig.stash[SERVERS].databases:
        server.drop_temporary()
    buckets = pytestconfig.stash[BUCKETS]
    while buckets:
        with suppress(AssertionError, OSError):  # a bucket with Object Lock stays, a server may be gone
            made_on, bucket = buckets.pop()
            raw_request(made_on, "DELETE", bucket, {"x-minio-force-delete": b"true"})


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Servers]:
    """The run's servers; ``os.environ`` holds the profiles and passwords that reach them."""
    with (
        pytest.MonkeyPatch.context() as patch,
        Servers(tmp_path_factory.mktemp("servers"), keeps_data=False) as running,
    ):
        for name in [name for name in os.environ if name.startswith(FOREIGN)]:
            patch.delenv(name)
        for name, value in {**running.environment, **GO_SETTINGS}.items():
            patch.setenv(name, value)
        pytestconfig.stash[SERVERS], pytestconfig.stash[BUCKETS] = running, []
        yield running


@pytest.fixture(scope="session")
def minio(servers: Servers) -> S3Server:
    """A MinIO: the old host's object storage."""
    return servers.minio("minio")


@pytest.fixture(scope="session")
def other_minio(servers: Servers) -> S3Server:
    """Another MinIO: the new host's."""
    return servers.minio("other-minio")


@pytest.fixture(scope="session")
def encrypting_minio(servers: Servers) -> S3Server:
    """A third MinIO, whose buckets can be told to encrypt."""
    return servers.minio("encrypting-minio", encrypts=True)


@pytest.fixture(scope="session")
def versitygw(servers: Servers) -> S3Server:
    """An S3 server that is not MinIO."""
    return servers.versitygw("versitygw")


@pytest.fixture(scope="session")
def rclone(servers: Servers) -> S3Server:
    """A third S3 server, that of rclone; skips and says so in the summary where there is none."""
    try:
        return servers.rclone("rclone")
    except ServerError as error:
        pytest.skip(f"NOT TESTED: {error}")


@pytest.fixture(scope="session")
def postgres(servers: Servers) -> PostgresServer:
    """A PostgreSQL whose changes can be followed: the old host's; ``postgres.database()`` is the URL of a fresh
    database.
    """
    return servers.postgres(
        "postgres", settings=["wal_level=logical", "max_replication_slots=40", "max_prepared_transactions=10"]
    )


@pytest.fixture(scope="session")
def other_postgres(servers: Servers) -> PostgresServer:
    """Another PostgreSQL, with the settings of a fresh one: the new host's."""
    return servers.postgres("other-postgres")


@pytest.fixture(scope="session")
def mariadb(servers: Servers) -> MariadbServer:
    """A MariaDB: the old host's; ``mariadb.database()`` is the URL of a fresh database."""
    return _mariadb(servers, "mariadb-old")


@pytest.fixture(scope="session")
def other_mariadb(servers: Servers) -> MariadbServer:
    """Another MariaDB: the new host's."""
    return _mariadb(servers, "mariadb-new")


@pytest.fixture(scope="session")
def followed_mariadb(servers: Servers) -> MariadbServer:
    """A third MariaDB, whose changes can be followed."""
    return _mariadb(servers, "mariadb-followed", ["binlog-format=ROW", "binlog-row-metadata=FULL"])


def _mariadb(servers: Servers, name: str, settings: Sequence[str] = ()) -> MariadbServer:
    """Start one, or skip and say so in the summary where there is no MariaDB."""
    try:
        find_mariadb()
    except ServerError as error:
        pytest.skip(f"NOT TESTED: {error}")
    return servers.mariadb(name, settings=settings)


@pytest.fixture(scope="session")
def mysql(servers: Servers) -> MariadbServer:
    """A MySQL, for the long tests only: where there is none it is fetched, which takes a while."""
    return servers.mysql("mysql-old")


@pytest.fixture(scope="session")
def other_mysql(servers: Servers) -> MariadbServer:
    """Another MySQL."""
    return servers.mysql("mysql-new")


@pytest.fixture(scope="session")
def toxiproxy(servers: Servers) -> Toxiproxy:
    """A maker of proxies with faults."""
    return servers.toxiproxy()


@pytest.fixture(scope="session")
def make_bucket(servers: Servers, pytestconfig: pytest.Config) -> Callable[[S3Server], str]:
    """Make a fresh bucket on a server, return its name."""

    def make(server: S3Server) -> str:
        name = f"bucket-{secrets.token_hex(6)}"
        raw_request(server, "PUT", name)
        pytestconfig.stash[BUCKETS].append((server, name))
        return name

    return make


@pytest.fixture
def bucket(minio: S3Server, make_bucket: Callable[[S3Server], str]) -> str:
    """The name of a fresh bucket on ``minio``."""
    return make_bucket(minio)
