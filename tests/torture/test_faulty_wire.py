"""Faults of HTTP itself, one at a time, at any request of any verb. The verb finishes and all is right, or it stops
with the right code, and the same command finishes once the wire is mended.

MOVEOUT_FAULTS runs in all (300), MOVEOUT_SEED repeats them. The scoreboard is printed at the end.
"""

import hashlib
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from migrate.storage import inflight_limit
from migrate.storage.s3.own_objects import SYNC_RECORDS
from tests.cli.conftest import call
from tests.exporters.objects.conftest import Shop
from tests.sync.test_large import upload
from tests.tools.clients import boto_client
from tests.tools.fault_proxy import FaultProxy, Planned
from tests.tools.profiles import extra_profile
from tests.tools.tally import count

RUNS = int(os.environ.get("MOVEOUT_FAULTS", "300"))
VERBS = ("export", "location", "transfer", "fetch", "restore", "sync-from", "sync-to")
HONEST = {3, 4, 5, 6}
"""With gaps, not allowed, unreachable, damage found."""
MIB = 2**20


@dataclass(frozen=True)
class Scene:
    """A bucket, what is in it, and its bundle in a directory and at an S3 location."""

    bucket: str
    bodies: dict
    bundle: Path
    location: str


def client(server):
    return boto_client(server.profile)


@pytest.fixture(scope="module")
def scene(minio, make_bucket, tmp_path_factory):
    name, location = make_bucket(minio), make_bucket(minio)
    bodies = {f"small/{number:02d}": random.Random(number).randbytes(number * 400) for number in range(40)}
    bodies |= {"large": random.Random(1).randbytes(9 * MIB), "parts": random.Random(2).randbytes(17 * MIB)}
    s3 = client(minio)
    for key, body in bodies.items():
        described = {"Metadata": {"key": key.replace("/", "-")}, "Tagging": "of=scene"}
        if key == "parts":
            upload(Shop(minio, name, s3), key, body, 6 * MIB, **described)
        else:
            s3.put_object(Bucket=name, Key=key, Body=body, **described)
    bundle = tmp_path_factory.mktemp("scene") / "bundle"
    assert call("export", f"shop=s3://{name}?profile={minio.profile}", "--to", bundle, "--quiet").code == 0
    at = f"s3://{location}/b?profile={minio.profile}"
    assert call("transfer", bundle, at, "--quiet").code == 0
    return Scene(name, bodies, bundle, f"s3://{location}/b")


class Stage:
    """One verb, with the proxy in its way."""

    def __init__(self, verb, scene, profile, server, make_bucket, path):
        self.verb, self.scene, self.server, self.path = verb, scene, server, path
        self.destination = make_bucket(server) if verb not in {"export", "fetch"} else ""
        source = f"shop=s3://{scene.bucket}?profile={profile if verb == 'export' else server.profile}"
        self.words = {
            "export": ("export", source, "--to", path),
            "location": ("export", source, "--to", f"s3://{self.destination}/b?profile={profile}"),
            "transfer": ("transfer", scene.bundle, f"s3://{self.destination}/b?profile={profile}"),
            "fetch": ("transfer", f"{scene.location}?profile={profile}", path),
            "restore": ("restore", scene.bundle, f"shop=s3://{self.destination}?profile={profile}"),
            "sync-from": sync_words(scene.bucket, profile, self.destination, server.profile),
            "sync-to": sync_words(scene.bucket, server.profile, self.destination, profile),
        }[verb]

    def run(self):
        """As a process of its own does, which knows nothing of the link, by which parts are cut."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(inflight_limit, "_limiters", {})
            return call(*self.words, "--workers", "2", "--quiet")

    def run_again(self):
        """The same once more; threads of the run that broke off may still hold the lease, which as a process of its
        own would be gone.
        """
        for _ in range(30):
            ended = self.run()
            if ended.code != 5 or "is in use" not in ended.err:
                return ended
            time.sleep(2)
        return ended

    def is_right(self):
        """Whether all has arrived, by a look that takes another way."""
        s3 = client(self.server)
        if self.verb in {"restore", "sync-from", "sync-to"}:
            return read_bucket(s3, self.destination) == described(self.scene.bodies)
        if self.verb == "location":
            self.path.mkdir()
            for key in keys(s3, self.destination):
                file = self.path / key.removeprefix("b/")
                file.parent.mkdir(parents=True, exist_ok=True)
                s3.download_file(self.destination, key, str(file))
        if self.verb in {"export", "location"}:
            verified = call("verify", self.path, "--level", "full", "--quiet").code == 0
            return verified and read_bundle(self.path) == described(self.scene.bodies)
        wanted = {
            str(file.relative_to(self.scene.bundle)): sha256(file.read_bytes())
            for file in files(self.scene.bundle)
        }
        if self.verb == "fetch":
            return {
                str(file.relative_to(self.path)): sha256(file.read_bytes()) for file in files(self.path)
            } == wanted
        return {
            key.removeprefix("b/"): sha256(s3.get_object(Bucket=self.destination, Key=key)["Body"].read())
            for key in keys(s3, self.destination)
        } == wanted


def sync_words(old, old_profile, new, new_profile):
    return ("sync", f"s3://{old}?profile={old_profile}", f"s3://{new}?profile={new_profile}", "--cutover")


def sha256(body):
    return hashlib.sha256(body).hexdigest()


def files(root):
    return [path for path in root.rglob("*") if path.is_file() and "_work" not in path.parts]


def keys(s3, bucket):
    return [
        one["Key"]
        for one in s3.list_objects_v2(Bucket=bucket).get("Contents", ())
        if "/_work/" not in one["Key"] and not one["Key"].startswith(SYNC_RECORDS)
    ]


def described(bodies):
    """What is to be seen of every object: bytes, metadata, tags."""
    return {
        key: (sha256(body), {"key": key.replace("/", "-")}, {"of": "scene"}) for key, body in bodies.items()
    }


def read_bucket(s3, bucket):
    found = {}
    for key in keys(s3, bucket):
        answer = s3.get_object(Bucket=bucket, Key=key)
        tags = s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
        found[key] = (
            sha256(answer["Body"].read()),
            answer["Metadata"],
            {one["Key"]: one["Value"] for one in tags},
        )
    return found


def read_bundle(location):
    found = {}
    for row in ds.dataset(location / "data/shop/index", format="parquet").to_table().to_pylist():
        if row["disposition"] == "exported":
            start = row["offset"] or 0
            body = (location / "data/shop" / (row["pack"] or row["large"])).read_bytes()[
                start : start + row["length"]
            ]
            found[row["key"]] = (sha256(body), dict(row["metadata"]), dict(row["tags"]))
    return found


def planned_from(counts):
    """Among how many requests faults are planned, by those of an undisturbed run; others may make somewhat fewer."""
    return {kind: max(1, count * 9 // 10) for kind, count in counts.items() if count}


@pytest.mark.torture
def test_one_run_asks_as_much_as_the_next(scene, minio, make_bucket, tmp_path, monkeypatch):
    """So that a fault that is planned by the first can happen to any."""
    seen = []
    with FaultProxy(minio.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        for number in range(2):
            proxy.counts = {}
            stage = Stage("transfer", scene, profile, minio, make_bucket, tmp_path / f"run-{number}")
            assert stage.run().code == 0
            seen.append(proxy.counts)
    first, second = seen
    assert [kind for kind, among in planned_from(first).items() if second[kind] < among] == []


@pytest.mark.torture
@pytest.mark.parametrize("verb", VERBS)
def test_one_fault_at_any_request(verb, scene, minio, make_bucket, tmp_path, monkeypatch):
    seed = os.environ.get("MOVEOUT_SEED") or str(random.SystemRandom().randrange(10**9))
    score, fired, wrong = Counter[str](), Counter[str](), list[str]()
    with FaultProxy(minio.endpoint) as proxy:
        profile = extra_profile(monkeypatch, tmp_path, minio, endpoint=proxy.endpoint)
        assert Stage(verb, scene, profile, minio, make_bucket, tmp_path / "calm").run().code == 0
        counts = planned_from(proxy.counts)
        first = random.Random(seed).randrange(len(counts))
        runs = range(-(-RUNS // len(VERBS)))
        kinds = [list(counts)[(first + number) % len(counts)] for number in runs]
        for number, kind in enumerate(kinds):
            draw = random.Random(f"{seed}/{verb}/{number}")
            planned = Planned(kind, 1 + draw.randrange(counts[kind]), draw.choice([1, 1, 1, 3]))
            proxy.plan = [planned]
            stage = Stage(verb, scene, profile, minio, make_bucket, tmp_path / f"run-{number}")
            ended = stage.run()
            message = (
                f"{verb} {number}: {kind} at {planned.nth} x {planned.times}: {ended.code} {ended.err[-300:]}"
            )
            fired[kind] += planned.fired
            if not planned.fired:
                wrong.append(f"did not happen: {message}")
            if ended.code == 0:
                score["finished"] += 1
            elif ended.code in HONEST:
                score[f"stopped with {ended.code}"] += 1
                proxy.plan = []
                again = stage.run_again()
                if again.code != 0:
                    wrong.append(f"did not go on: {message}; then {again.code} {again.err[-300:]}")
                    continue
            else:
                wrong.append(f"wrong code: {message}")
                continue
            if not stage.is_right():
                score["silent corruption"] += 1
                wrong.append(f"silent corruption: {message}")
                continue
            count("network faults", int(planned.fired > 0))
    sys.stderr.write(f"\n{verb} (MOVEOUT_SEED={seed}): {dict(score)}; fired: {dict(fired)}\n")
    assert set(fired) == set(kinds)
    assert not wrong, "\n".join(wrong)
