"""A bundle at a location, read, restored, and sealed with other contents."""

import hashlib
import json
import re
from pathlib import Path

from migrate.bundle.reader import BundleReader
from migrate.engines import registry
from migrate.restore.common.api import RestoreRequest
from migrate.restore.source_restore import restorer_of
from migrate.runtime.progress import Silent
from migrate.storage.registry import open_location
from migrate.verify.compare import ComparisonRequest
from migrate.verify.live_database import compare_database


def read_bundle(location):
    return BundleReader(open_location(str(location)))


def restore_from(reader, source, url, *, password=None, **fields):
    """Restore one source by its engine's restorer. ``fields``: further ones of the ``RestoreRequest``."""
    secrets = {"password": password} if password else {}
    request = RestoreRequest(
        reader, source, url, secrets=secrets, **{"workers": 1, "progress": Silent(), **fields}
    )
    return restorer_of(registry.engine_for(url, url)).restore(request)


def restore_whole(reader, source, url, **more):
    """Restore one source, of which nothing differs and nothing is left out; return the outcome."""
    outcome = restore_from(reader, source, url, **more)
    assert (outcome.findings, outcome.left_out) == ((), ())
    return outcome


def differences(reader, url, source="app"):
    """Return what is not in a database as it is in a bundle."""
    return compare_database(ComparisonRequest(reader, source, url, workers=2, progress=Silent())).findings


def seal_anew(bundle: Path, key: str, data: bytes) -> None:
    """Write a file, and its hash into the lists of hashes."""
    (bundle / key).write_bytes(data)
    tags = "tagmanifest-sha256.txt"
    for manifest, name in (("manifest-sha256.txt", key), (tags, key), (tags, "manifest-sha256.txt")):
        digest = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
        lines = (bundle / manifest).read_text().splitlines()
        lines = [f"{digest}  {name}" if line.endswith(f"  {name}") else line for line in lines]
        (bundle / manifest).write_text("".join(f"{line}\n" for line in lines))


def put_in_place_of(bundle: Path, old: str, new: str, data: bytes) -> None:
    """Write a file in place of one of the bundle; the new name stands at the same place of the lists."""
    (bundle / new).parent.mkdir(exist_ok=True)
    (bundle / old).rename(bundle / new)
    (bundle / new).write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    lines = (bundle / "meta/files.jsonl").read_text().splitlines()
    for number, record in enumerate(map(json.loads, lines)):
        if record["key"] == old:
            record |= {"key": new, "size_bytes": len(data), "sha256": sha256}
            lines[number] = json.dumps(record, sort_keys=True, separators=(",", ":"))
    seal_anew(bundle, "meta/files.jsonl", "".join(f"{line}\n" for line in lines).encode())
    manifest = re.sub(rf"\w+  {old}\n", f"{sha256}  {new}\n", (bundle / "manifest-sha256.txt").read_text())
    seal_anew(bundle, "manifest-sha256.txt", manifest.encode())
