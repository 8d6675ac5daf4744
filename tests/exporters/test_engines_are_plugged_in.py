"""The rooms that work on all engines name none of them: they ask the registry."""

import ast
from importlib.metadata import entry_points
from pathlib import Path

from exporters.engine import ENTRY_POINTS, load_part
from migrate.engines import registry

ROOT = Path(__file__).parents[2] / "migrate"
ROOMS = ("case", "cli", "cluster", "custody", "export", "plan", "report", "verify")
PARTS = ("exporter", "part_reader", "live_reader", "comparison", "restorer", "row_writer", "hold")


def literals(path):
    """Yield the texts of a module that are values, with their lines: no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    prose = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose:
            yield node.lineno, node.value


def test_no_room_names_an_engine():
    schemes = {scheme for engine in registry.engines() for scheme in engine.schemes}
    names = {f"{scheme}{end}" for scheme in schemes for end in ("", ":", "://")}
    parts = {load_part(engine.hold).__module__ for engine in registry.engines() if engine.hold}
    own = {f"{part.removeprefix('migrate.').replace('.', '/')}" for part in parts}
    offenders = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            name = str(path.relative_to(ROOT).with_suffix(""))
            if any(name == one or name.startswith((f"{one}_", f"{one}/")) for one in own):
                continue
            offenders += [
                f"{name}:{line}: {text!r}" for line, text in literals(path) if text.lower() in names
            ]
    assert offenders == []


def test_every_part_of_every_engine_can_be_imported():
    assert {engine.name for engine in registry.engines()} >= {
        "PostgreSQL",
        "MySQL or MariaDB",
        "SQLite",
        "S3",
    }
    assert len(registry.engines()) == len(entry_points(group=ENTRY_POINTS))
    for engine in registry.engines():
        for part in (*PARTS, "doctor", "destination_doctor"):
            assert not getattr(engine, part) or callable(load_part(getattr(engine, part))), (engine, part)
