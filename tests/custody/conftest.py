"""Sealed bundles and keys, without any server."""

import itertools
import secrets
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from migrate.cli.common.document_files import write_files
from migrate.custody import bundle_hold, cross_checks, documents, hold_release
from migrate.custody.log import custody_log
from migrate.custody.log.events import record_seal
from migrate.custody.signing import keys
from migrate.custody.signing.bundle_signatures import sign_bundle
from migrate.custody.signing.keys import KeyFile
from migrate.export.run import export
from migrate.runtime.progress import Silent
from migrate.storage.api import MultipartStore
from migrate.storage.registry import open_location, open_object_lock
from tests.bundle.test_hostile import Memory
from tests.export.sources import Numbers
from tests.tools.clients import boto_client
from tests.transfer.bags import contents


@pytest.fixture(autouse=True)
def independent_programs():
    """Signatures and timestamps are checked by programs that know nothing of moveout."""
    for program, package in (("ssh-keygen", "openssh-client"), ("openssl", "openssl")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on this machine (Debian's {package}): custody is not tried")


@pytest.fixture(scope="session")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a complete bundle, to be copied."""
    path = tmp_path_factory.mktemp("sealed") / "bundle"
    export([Numbers(count=15)], open_location(str(path)), workers=1, progress=Silent())
    return path


@pytest.fixture
def location(sealed: Path, tmp_path: Path) -> MultipartStore:
    """A copy of it."""
    return open_location(str(shutil.copytree(sealed, tmp_path / "bundle")))


@pytest.fixture(scope="session")
def make_key(tmp_path_factory: pytest.TempPathFactory):
    """Make a key by its owner's name, once a name; ``path_of`` says where it lies."""
    directory = tmp_path_factory.mktemp("keys")

    def make(name: str) -> KeyFile:
        path = directory / name
        return keys.load(path, lambda: None) if path.exists() else keys.create(path, name, None)

    make.path_of = lambda name: (make(name), directory / name)[1]
    return make


@pytest.fixture
def provider(make_key) -> KeyFile:
    """The provider's key."""
    return make_key("provider")


@pytest.fixture
def customer(make_key) -> KeyFile:
    """The customer's key."""
    return make_key("customer")


@pytest.fixture
def ticking(monkeypatch) -> None:
    """Whenever a document is made, a second more has passed: no two are the same by chance."""
    begun, ticks = datetime.now(UTC), itertools.count(1)

    class Ticking(datetime):
        @classmethod
        def now(cls, tz=None):
            return begun.astimezone(tz) + timedelta(seconds=next(ticks))

    monkeypatch.setattr("migrate.custody.documents.datetime", Ticking)


@pytest.fixture
def locked(minio):
    """A fresh bucket with Object Lock: (client, name, URL of a location in it)."""
    client = boto_client(minio.profile)
    name = f"locked-{secrets.token_hex(5)}"
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return client, name, f"s3://{name}/bundle?profile={minio.profile}"


@pytest.fixture
def there(location, locked, provider):
    """A signed bundle in it: (store, object_lock)."""
    sign_bundle(location, provider)
    store = open_location(locked[2])
    put_files(location, store)
    record_seal(store, provider, [provider])
    return store, open_object_lock(locked[2])


def put_files(origin: MultipartStore, destination: MultipartStore) -> None:
    """Put a bundle at another location as it is. A transfer does more, which only tests of transfers need."""
    for key, data in contents(origin).items():
        destination.put(key, data)


def in_memory(location: MultipartStore) -> Memory:
    """What lies at a location, to be changed in ``files`` many times: no disk has to be waited for."""
    store = Memory(contents(location))
    store.location = location.location
    return store


def against_bundle(store, object_lock=None):
    """Compare the log at a location with what lies there."""
    return cross_checks.against_bundle(
        custody_log.read(store), store, documents.read_all(store)[0], object_lock, trust=None
    )


def ssh_verify(allowed: Path, principal: str, namespace: str, signature: bytes, message: bytes) -> bool:
    """Let ``ssh-keygen -Y verify`` judge a signature."""
    file = allowed.with_name("signature")
    file.write_bytes(signature)
    argv = ["ssh-keygen", "-Y", "verify", "-f", allowed, "-I", principal, "-n", namespace, "-s", file]
    return subprocess.run(argv, input=message, capture_output=True, check=False).returncode == 0


def release_hold(store, object_lock, reason, signers, *, trust=None, **options):
    """Sign a release at one location with all these keys, and return what became of it."""
    return hold_release.release(
        store,
        object_lock,
        hold_release.prepare(store, reason, trust=None),
        signers,
        progress=Silent(),
        trust=trust,
        **options,
    )


def soon(**later) -> datetime:
    return (datetime.now(UTC) + timedelta(**later)).replace(microsecond=0)


def put_hold(there, provider, terms, **details):
    return bundle_hold.place(*there, terms, workers=4, progress=Silent(), details=details, signer=provider)


def flat(text: str) -> str:
    """What was printed, without its line breaks."""
    return " ".join(text.split())


def mailed(folder, document, *signers):
    """Write a document and signatures as they come by mail; return the document's file."""
    return Path(write_files(folder, document, documents.signatures_of(document, signers))[0])


def signers_file(path, **keys):
    """A list of signers: names, each with its keys."""
    path.write_text("".join(f"{name} {key.public.line}\n" for name, own in keys.items() for key in own))
    return path
