"""What a provider's commands do to a small bundle, and what has to be there at their end."""

from __future__ import annotations

import secrets
import shutil
from collections import Counter
from pathlib import Path

from migrate.bundle import layout
from migrate.cli.common.document_files import read_files
from migrate.custody import bundle_hold, documents
from migrate.custody.log import custody_log
from migrate.custody.signing import keys
from migrate.storage.registry import open_location, open_object_lock
from migrate.storage.s3 import client
from migrate.storage.s3.access.minio_accounts import Accounts
from tests.cli.conftest import call
from tests.crash_points.moves import Move, make_bundle, make_file
from tests.tools.clients import boto_client


def make_key(directory: Path, owner: str) -> Path:
    """Make a key, unless it is there; return its file."""
    key = directory / owner
    if not key.exists():
        keys.create(key, owner, None)
    return key


def succeed(*words: object) -> None:
    """Give a command that has to succeed."""
    done = call(*words)
    assert done.code == 0, done.err


def events(location: str) -> Counter[str]:
    """Count the entries of a custody log by their kind."""
    return Counter(entry.what.event for entry in custody_log.read(open_location(location)).entries)


class Sign(Move):
    """A sealed bundle is signed."""

    def begin(self, number: int) -> None:
        self.key = make_key(self.directory, "host")
        self.location = str(self.directory / f"copy-{number}")
        shutil.copytree(make_bundle(make_file(self.directory), self.directory / "bundle"), self.location)
        self.words = ["sign", self.location, "--key", str(self.key)]

    def outcome(self) -> object:
        names = {info.key for info in open_location(self.location).list()}
        return names, events(self.location), call("verify", self.location, "--level", "full").code


class Receive(Sign):
    """A customer signs for a bundle, and has the papers in files, too."""

    def begin(self, number: int) -> None:
        super().begin(number)
        succeed(*self.words)
        self.papers = self.directory / f"papers-{number}"
        customer = make_key(self.directory, "customer")
        self.words = ["receive", self.location, "--key", str(customer), "--to", str(self.papers)]

    def outcome(self) -> object:
        # A hidden file of the dead run may lie there: it has the number of its process, and no reader takes it.
        papers = Counter(path.suffix for path in self.papers.iterdir() if not path.name.startswith("."))
        receipts = Counter(
            key.rpartition(".")[2]
            for info in open_location(self.location).list()
            if "receipt" in (key := info.key)
        )
        return papers, receipts, events(self.location), call("verify", self.location).code


class InMinio(Move):
    """A signed bundle in a bucket of its own."""

    has_lock = False

    def begin(self, number: int) -> None:
        profile = self.servers["minio"].profile
        if number == 0:
            self.name = f"crash-{secrets.token_hex(4)}"
        self.key = make_key(self.directory, "host")
        signed = self.directory / "bundle"
        if not signed.exists():
            succeed("sign", make_bundle(make_file(self.directory), signed), "--key", self.key)
        self.bucket = f"{self.name}-{number}"
        boto_client(profile).create_bucket(Bucket=self.bucket, ObjectLockEnabledForBucket=self.has_lock)
        self.location = f"s3://{self.bucket}/bundle?profile={profile}"
        succeed("transfer", signed, self.location)


class GrantCreate(InMinio):
    """A customer may read the bundle by an account."""

    def begin(self, number: int) -> None:
        super().begin(number)
        self.file = self.directory / f"grant-{number}.ini"
        self.words = [
            "grant",
            "create",
            self.location,
            "--to",
            "acme",
            "--expires",
            "1d",
            "--key",
            str(self.key),
        ]
        self.words += ["--file", str(self.file)]

    def outcome(self) -> object:
        settings = dict(line.split(" = ", 1) for line in self.file.read_text().splitlines() if " = " in line)
        account = Accounts(client.parse(self.location)).find(settings["aws_access_key_id"])
        return account is not None and account.is_enabled, self.file.stat().st_mode, self.states()[-1:]

    def states(self) -> list[str]:
        """Return what became of each grant."""
        return [
            grant["state"]
            for grant in call("grant", "list", self.location, "--json").json["result"]["grants"]
        ]


class GrantRevoke(GrantCreate):
    """That is taken back."""

    def begin(self, number: int) -> None:
        super().begin(number)
        succeed(*self.words)
        self.words = ["grant", "revoke", self.location, "--to", "acme", "--key", str(self.key)]

    def outcome(self) -> object:
        return self.states(), events(self.location)


class HoldPlace(InMinio):
    """Every version of the bundle is locked."""

    has_lock = True

    def begin(self, number: int) -> None:
        super().begin(number)
        self.words = ["hold", "place", self.location, "--until", "2099-01-01T00:00:00Z", "--legal"]
        self.words += ["--reason", "a test", "--key", str(self.key), "--workers", "1"]

    def outcome(self) -> object:
        survey = bundle_hold.survey(open_location(self.location), open_object_lock(self.location), workers=2)
        return survey.is_held, survey.until, events(self.location)


class HoldRelease(HoldPlace):
    """The locks are taken away."""

    def begin(self, number: int) -> None:
        super().begin(number)
        succeed(*self.words)
        self.words = [
            "hold",
            "release",
            self.location,
            "--reason",
            "a test",
            "--key",
            str(self.key),
            "--workers",
            "1",
        ]


class HoldReleaseByTwo(HoldPlace):
    """The locks are taken away by a release that the second of two owners has signed as a file."""

    def begin(self, number: int) -> None:
        super().begin(number)
        keys_ = {name: make_key(self.directory, name) for name in ("host", "counsel")}
        public = {name: keys.load(path, lambda: None).public for name, path in keys_.items()}
        (self.directory / "signers").write_text(
            "".join(f"{name} {key.line}\n" for name, key in public.items())
        )
        names = ", ".join(f'"{key.fingerprint}"' for key in public.values())
        case = self.directory / "case.toml"
        case.write_text(f'[custody]\nsigners = "signers"\nrelease_keys = [{names}]\nrelease_quorum = 2\n')
        succeed(*self.words, "-c", case)
        papers = self.directory / f"papers-{number}"
        words = ["hold", "release", self.location, "-c", str(case), "--key", str(self.key), "--workers", "1"]
        assert call(*words, "--reason", "a test", "--to", papers).code == 3
        (self.file,) = papers.glob("release-*.json")
        self.sign = ["custody", "sign", str(self.file), "--key", str(keys_["counsel"]), "--yes"]
        succeed(*self.sign)
        self.words = [*words, str(self.file)]

    def outcome(self) -> object:
        (document,), findings = documents.read_all(open_location(self.location), "release")
        verified = call("custody", "verify", self.location, "--signers", self.directory / "signers")
        return super().outcome(), len(document.signers), findings, verified.code


class HoldReleaseBegin(HoldReleaseByTwo):
    """The first of two owners begins a release, in a file, too."""

    end_codes = (3,)

    def begin(self, number: int) -> None:
        super().begin(number)
        shutil.rmtree(self.file.parent)
        self.words = [*self.words[:-1], "--reason", "another", "--to", str(self.file.parent)]

    def outcome(self) -> object:
        papers = Counter(path.suffix for path in self.file.parent.iterdir() if path.name[0] != ".")
        read, findings = documents.read_all(open_location(self.location), "release")
        reasons = sorted((document.value["reason"], len(document.signers)) for document in read)
        return papers, reasons, findings, HoldPlace.outcome(self)


class CustodySign(HoldReleaseByTwo):
    """The second owner signs the file."""

    def begin(self, number: int) -> None:
        super().begin(number)
        for file in self.file.parent.glob("*.sig"):
            file.unlink()
        self.words = self.sign

    def outcome(self) -> object:
        document, signatures = read_files(self.file)
        return [documents.signed_by(document, *signature).name for signature in signatures.items()]


class EraseVersions(InMinio):
    """Every version of the bundle goes, an older one and a delete marker among them."""

    has_lock = True

    def begin(self, number: int) -> None:
        super().begin(number)
        store = open_location(self.location)
        store.put(layout.BAG_INFO, store.read(layout.BAG_INFO))
        store.put("data/stray", b"x")
        store.delete("data/stray")
        self.words = ["erase", self.location, "--key", str(self.key), "--override", "a test", "--yes"]

    def outcome(self) -> object:
        left = {version.key for version in open_object_lock(self.location).versions()}
        (certificate,), findings = documents.read_all(open_location(self.location), "erasure")
        # A transfer's progress and lease leave more versions where it took longer.
        counts = certificate.value["versions"] > 20, certificate.value["delete_markers"] > 1
        left = {key for key in left if not key.startswith(("sig/custody", "sig/erasure-", "sig/checkpoint"))}
        verified = call("custody", "verify", self.location)
        return left, counts, findings, events(self.location), verified.code


CUSTODY_MOVES: dict[str, type[Move]] = {
    "sign": Sign,
    "receive": Receive,
    "grant-create-minio": GrantCreate,
    "grant-revoke-minio": GrantRevoke,
    "hold-place-minio": HoldPlace,
    "hold-release-minio": HoldRelease,
    "hold-release-begin-minio": HoldReleaseBegin,
    "hold-release-by-two-minio": HoldReleaseByTwo,
    "custody-sign-minio": CustodySign,
    "erase-minio": EraseVersions,
}
