"""A seeded old host, its bundle, and the command ``moveout`` as a process that can be killed."""

import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts import seed
from tests.torture.command import must


@dataclass(frozen=True, slots=True)
class OldHost:
    """What leaves: the URLs of a database and a bucket."""

    database: str
    bucket: str
    profile: str

    @property
    def sources(self) -> tuple[str, str]:
        """The sources as words of the command line."""
        return f"app={self.database}", f"media=s3://{self.bucket}?profile={self.profile}"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A complete bundle in a directory, and how long its export took undisturbed."""

    path: Path
    seconds: float


@pytest.fixture(scope="session")
def old_host(postgres, minio) -> OldHost:
    url = postgres.database(stays=True)
    seed.seed_database(url)
    seed.seed_bucket(minio.profile, "torture-media", list(seed.objects()))
    return OldHost(url, "torture-media", minio.profile)


@pytest.fixture(scope="session")
def bundle(old_host, tmp_path_factory) -> Bundle:
    path = tmp_path_factory.mktemp("whole") / "bundle"
    return Bundle(path, must("export", *old_host.sources, "--to", path).seconds)


@pytest.fixture(scope="session")
def moments() -> Callable[[str, float, int], list[float]]:
    """A function that draws moments between 0 and ``seconds``; MOVEOUT_SEED repeats a run."""
    start = os.environ.get("MOVEOUT_SEED") or str(random.SystemRandom().randrange(10**9))
    sys.stderr.write(f"MOVEOUT_SEED={start}\n")

    def draw(what: str, seconds: float, count: int) -> list[float]:
        return [random.Random(f"{start}/{what}/{number}").uniform(0, seconds) for number in range(count)]

    return draw


@pytest.fixture(scope="module")
def restore_seconds(database, whole):
    """How long the restore of a module's ``database`` takes from its ``whole`` bundle."""
    destination = database.destination()
    seconds = must("restore", whole[0], f"app={destination}").seconds
    database.compare(destination)
    return seconds
