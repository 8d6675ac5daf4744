"""Which modules are mutated, and which files of tests may notice it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Package:
    """``modules`` and ``tests`` are files or folders. Of the tests only those run that reach the changed line."""

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]


_VERIFY = ("tests/verify", "tests/test_damage.py")
_BUNDLE = (
    *(
        f"tests/bundle/test_{name}.py"
        for name in (
            "reconciliation",
            "records",
            "export_state",
            "bundle_json",
            "canonical_json",
            "catalog",
            "layout",
            "left_behind",
            "tag_files",
            "reader",
            "findings",
            "seal",
            "table_comparison",
            "object_index",
            "duckdb_views",
            "lease",
            "hostile",
        )
    ),
    *_VERIFY,
)
_EXPORT = (
    "tests/export/test_lost_source.py",
    "tests/export/test_unit_runner.py",
    "tests/export/test_export.py",
    "tests/export/test_again.py",
    "tests/export/test_failures.py",
    "tests/export/test_damaged_state.py",
    "tests/export/test_lost_snapshot.py",
    "tests/export/test_full_location.py",
    "tests/export/test_growing.py",
    "tests/export/test_seal_time.py",
    "tests/export/test_seal_without_source.py",
    "tests/export/test_read_back.py",
    "tests/export/test_prepared_finish.py",
    "tests/export/test_crash.py",
    "tests/export/test_standing_seal.py",
    "tests/export/test_gone_source.py",
)
_TRANSFER = ("tests/transfer",)
_INVENTORY = (
    "tests/exporters/objects/test_source_summary.py",
    "tests/exporters/objects/test_inventory.py",
    "tests/exporters/objects/test_second_listing.py",
    "tests/exporters/objects/test_listing.py",
    "tests/exporters/objects/test_inventory_report.py",
    "tests/exporters/objects/test_selection.py",
    "tests/exporters/objects/test_history.py",
    "tests/exporters/objects/test_export.py",
    "tests/exporters/objects/test_rotten.py",
)
_SYNC = tuple(
    f"tests/sync/test_{name}.py"
    for name in (
        "diff",
        "equality_proof",
        "plan",
        "version_diff",
        "record_writes",
        "sync",
        "history",
        "null_version",
        "version_filter",
        "command",
    )
)
_CHANGES = tuple(
    f"tests/{name}.py"
    for name in (
        "changes/test_apply",
        "changes/test_capture_rules",
        "changes/test_capture_thread",
        "changes/test_change_logs",
        "changes/test_retained_log",
        "changes/test_segments",
        "changes/test_hostile_segments",
        "changes/test_delta_record",
        "changes/test_capture",
        "follow/test_delta",
        "follow/test_follower",
        "follow/test_follower_state",
    )
)
_FOLLOW = (
    "tests/changes/test_segments.py",
    "tests/changes/test_retained_log.py",
    "tests/changes/test_delta_record.py",
    *(
        f"tests/follow/test_{name}.py"
        for name in (
            "followed",
            "definitions",
            "delta",
            "early_comparison",
            "table_digests",
            "follower_state",
            "follower",
            "handover",
            "status",
            "kept_things",
            "status_age",
            "status_cutover",
            "cutover_steps",
            "all_cutovers",
            "held_sources",
        )
    ),
)
_CUTOVER = tuple(
    f"tests/follow/test_{name}.py"
    for name in ("cutover_command", "follow_command", "cutover", "mysql_cutover")
)

PACKAGES = (
    Package("verify", ("migrate/verify",), _VERIFY),
    Package("bundle", ("migrate/bundle",), (*_BUNDLE, *_EXPORT)),
    Package(
        "export: resume",
        tuple(
            f"migrate/export/{name}.py"
            for name in (
                "run",
                "source_export",
                "source_units",
                "unit_runner",
                "open_sources",
                "standing_seal",
            )
        ),
        _EXPORT,
    ),
    Package(
        "transfer: resume",
        tuple(
            f"migrate/transfer/{name}.py"
            for name in ("run", "plan", "destination", "file_copy", "source_bundle")
        ),
        _TRANSFER,
    ),
    Package(
        "inventory",
        tuple(
            f"exporters/objects/{name}.py"
            for name in (
                "listing/inventory",
                "listing/lister",
                "listing/shards",
                "listing/second_listing",
                "listing/s3_inventory_check",
                "source_summary",
            )
        ),
        _INVENTORY,
    ),
    Package(
        "sync: comparison",
        tuple(
            f"migrate/sync/{name}.py"
            for name in (
                "diff",
                "plan",
                "equality_proof",
                "versions/version_diff",
                "record/record_merge",
                "record/record_rows",
                "record/sync_record",
            )
        ),
        _SYNC,
    ),
    Package("changes", ("migrate/changes",), _CHANGES),
    Package("follow", ("migrate/follow",), _FOLLOW),
    Package("cutover", ("migrate/cli/cutover.py",), _CUTOVER),
    Package(
        "gone sources",
        ("exporters/sql/outline.py",),
        (
            "tests/exporters/sql/test_outline.py",
            "tests/export/test_gone_source.py",
            "tests/export/test_lost_snapshot.py",
        ),
    ),
    Package(
        "lossless text",
        ("exporters/lossless_text.py",),
        (
            "tests/exporters/objects/test_http_client.py",
            "tests/restore/objects/test_headers.py",
            "tests/exporters/test_lossless_text.py",
            "tests/cli/test_source_words.py",
            "tests/exporters/sqlite/test_directory.py",
        ),
    ),
    Package("custody", ("migrate/custody",), ("tests/custody",)),
)
"""In the order of the report."""


def modules_of(package: Package) -> Iterator[str]:
    """Return the paths of a package's modules below the checkout."""
    for name in package.modules:
        path = CHECKOUT / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if file.name != "__init__.py":
                yield file.relative_to(CHECKOUT).as_posix()


def tests_of(package: Package) -> Iterator[str]:
    """Return the paths of a package's files of tests below the checkout."""
    for name in package.tests:
        path = CHECKOUT / name
        for file in sorted(path.rglob("test_*.py")) if path.is_dir() else [path]:
            yield file.relative_to(CHECKOUT).as_posix()
