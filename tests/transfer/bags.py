"""Sealed bags for the tests, made with nothing but hashlib, and looked at the same way."""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence

from migrate.storage.api import Store

MIB = 2**20


def seal(
    store: Store, payload: Mapping[str, bytes], *, bundle_id: str = "bundle-1", continues: Sequence[str] = ()
) -> dict[str, bytes]:
    """Write a sealed bag with this payload (keys without ``data/``); return all of its files."""
    files = {f"data/{name}": data for name, data in payload.items()}
    manifest = "".join(f"{sha256(data)}  {key}\n" for key, data in sorted(files.items()))
    tags = {
        "bagit.txt": b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n",
        "manifest-sha256.txt": manifest.encode(),
        "meta/bundle.json": json.dumps(
            {
                "format": "moveout-bundle",
                "version": 1,
                "id": bundle_id,
                "created": "2026-01-01T00:00:00Z",
                "sealed": "2026-01-01T00:00:00Z",
                "software": "moveout",
                "complete": True,
                "continues": list(continues),
                "sources": [],
            }
        ).encode(),
    }
    tag_manifest = "".join(f"{sha256(data)}  {key}\n" for key, data in sorted(tags.items()))
    files |= tags | {"tagmanifest-sha256.txt": tag_manifest.encode()}
    for key, data in files.items():
        store.put(key, data)
    return files


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def noise(size_bytes: int, seed: int = 0) -> bytes:
    """Bytes that are the same again for the same seed."""
    return random.Random(seed).randbytes(size_bytes)


def contents(store: Store) -> dict[str, bytes]:
    """Read everything at a location."""
    return {info.key: store.read(info.key) for info in store.list()}


def some_payload() -> dict[str, bytes]:
    """Small files and large ones (in parts), cut at 5 MiB; one of whole parts exactly and an empty one."""
    small = {f"app/tables/1/part-{number:06}.parquet": noise(3000 + number, number) for number in range(40)}
    return small | {
        "app/schema/empty.sql": b"",
        "app/packs/pack-000000.tar": noise(13 * MIB, 100),
        "app/packs/pack-000001.tar": noise(10 * MIB, 101),
        "app/packs/pack-000002.tar": noise(5 * MIB, 102),
        "app/packs/pack-000003.tar": noise(5 * MIB + 1, 103),
    }
