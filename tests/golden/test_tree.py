"""The golden bundle's tree, made from its index and catalog by docs/FORMAT.md alone, without moveout's code."""

import base64
import hashlib
import hmac
import json

import pyarrow.parquet as pq

from tests.golden.make import BUNDLE


def members(source, catalog, hashes):
    for file in sorted((BUNDLE / "data" / source / "index").glob("*.parquet")):
        for row in pq.read_table(file).to_pylist():
            names = [
                "bucket",
                "key",
                "version_id",
                "size",
                "last_modified",
                "etag",
                "sha256",
                "disposition",
                "reason",
            ]
            item = {"kind": "object", "source": source} | {name: row[name] for name in names}
            yield item | {"last_modified": row["last_modified"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
    for row in (row for row in catalog if row["source"] == source and row["kind"] != "bucket"):
        for part in json.loads(row["details"])["parts"]:
            file = f"data/{source}/{part['name']}"
            named = {"kind": "part", "source": source, "schema": row["schema"], "table": row["name"]}
            yield named | {"file": file, "rows": part["rows"], "sha256": hashes[file]}


def text(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def leaf(item, salt):
    coded = base64.b64encode(item.get("key", "").encode()).decode()
    if len(text(item.get("key", "")).encode()) > len(text(coded)):
        item = {name: value for name, value in item.items() if name != "key"} | {"key_base64": coded}
    return text({"item": item, "salt": salt}).encode()


def root(hashes):
    """RFC 6962, section 2.1."""
    if len(hashes) == 1:
        return hashes[0]
    cut = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root(hashes[:cut]) + root(hashes[cut:])).digest()


def test_the_tree_is_made_as_the_specification_says():
    tree = json.loads((BUNDLE / "sig/tree.json").read_text())
    sources = json.loads((BUNDLE / "meta/bundle.json").read_text())["sources"]
    catalog = pq.read_table(BUNDLE / "data/catalog.parquet").to_pylist()
    lines = (BUNDLE / "manifest-sha256.txt").read_text().splitlines()
    hashes = {key: digest for digest, key in (line.split("  ", 1) for line in lines)}
    items = [item for source in sources for item in members(source["name"], catalog, hashes)]
    seed = bytes.fromhex(tree["seed"])
    salts = [
        hmac.digest(seed, number.to_bytes(8, "big"), "sha256")[:16].hex() for number in range(len(items))
    ]
    leaves = [leaf(item, salt) for item, salt in zip(items, salts, strict=True)]
    made = root([hashlib.sha256(b"\0" + each).digest() for each in leaves])
    assert (len(leaves), made.hex()) == (tree["size"], tree["hash"])
    assert {item["kind"] for item in items} == {"object", "part"}
