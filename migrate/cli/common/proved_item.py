"""The item that a proof is about."""

from __future__ import annotations

from migrate.cli.common.terminal import plain

Item = dict[str, object]


def describe(item: Item) -> str:
    """Return the item in one line."""
    if item["kind"] == "part":
        return plain(f"{item['file']}, {item['rows']} rows of {item['table']}, SHA-256 {item['sha256']}")
    state = (
        f"SHA-256 {item['sha256']}"
        if item["disposition"] == "exported"
        else f"{item['disposition']}: {item['reason']}"
    )
    return plain(f"{item['bucket']}/{item['key']}, {item['size']} bytes, {state}")
