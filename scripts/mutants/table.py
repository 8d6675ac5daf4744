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
    "tests/export/test_export.py",
    "tests/export/test_again.py",
    "tests/export/test_failures.py",
    "tests/export/test_full_location.py",
    "tests/export/test_growing.py",
    "tests/export/test_seal_time.py",
    "tests/export/test_seal_without_source.py",
    "tests/export/test_read_back.py",
    "tests/export/test_foresight.py",
    "tests/export/test_crash.py",
)
_TRANSFER = ("tests/transfer",)
_CHANGES = tuple(
    f"tests/changes/test_{name}.py"
    for name in (
        "apply",
        "capture_rules",
        "retained_log",
        "segments",
        "delta_record",
        "capture",
        "export_follow",
    )
)
_FOLLOW = (
    *_CHANGES,
    *(
        f"tests/follow/test_{name}.py"
        for name in (
            "definitions",
            "delta",
            "early_comparison",
            "table_digests",
            "follower_state",
            "kept_things",
            "follower",
            "handover",
            "resync",
            "status_cutover",
            "follow_command",
            "cutover",
            "cutover_steps",
            "all_cutovers",
            "held_sources",
            "mysql_cutover",
        )
    ),
)

PACKAGES = (
    Package("verify", ("migrate/verify",), _VERIFY),
    Package("bundle", ("migrate/bundle",), (*_BUNDLE, *_EXPORT)),
    Package(
        "export: resume",
        tuple(f"migrate/export/{name}.py" for name in ("run", "source_units", "unit_runner", "lost_source")),
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
    Package("changes", ("migrate/changes",), _FOLLOW),
    Package("follow", ("migrate/follow",), _FOLLOW),
    Package("cutover", ("migrate/cli/cutover.py",), _FOLLOW),
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
