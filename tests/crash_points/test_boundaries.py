"""Every step that makes something durable has a name at which a test can end the process."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from migrate.storage.api import MultipartStore
from migrate.storage.crash_points import CrashPoints

PRODUCT = Path(__file__).parents[2] / "migrate"
SIGNS = re.compile(r"\.(?:transaction|rename|replace|link)\(|COMMIT|durable|crash_point")
"""What a module has one of where it makes something durable: the others need not be parsed."""
OF_THE_LOCATION = {PRODUCT / "storage" / "local" / name for name in ("store.py", "uploads.py")}
"""Their writes are named by the wrapper around every location."""
SAVEPOINTS = {
    "restore/postgres/changes/remainder.py:_describe",
    "restore/postgres/changes/remainder.py:_empty",
    "restore/postgres/definitions/pre_data_entries.py:_error",
    "restore/postgres/definitions/pre_data_entries.py:_make",
    "restore/postgres/definitions/refusals.py:refusal_of",
    "restore/postgres/definitions/refusals.py:without_checks",
    "restore/postgres/row_repair.py:write",
}
"""Functions whose transaction lies within another one: nothing is durable at its end."""
READING = {
    "restore/postgres/changes/remainder.py:_pieces",
    "restore/postgres/statistics.py:_refusal",
    "restore/postgres/rows/value_filter.py:_error",
    "restore/postgres/rows/load_rows.py:_filtered",
    "restore/sqlite/destination.py:open_destination",
}
"""Functions whose transaction changes nothing that a later command asks for."""
METHODS_THAT_READ = {
    "read", "stat", "list", "uploads", "parts", "part_bytes", "tidying", "limiter", "free_bytes", "free_files",
    "keep_room",
}  # fmt: skip


def is_durable(call: ast.Call) -> bool:
    """Tell whether a call commits a transaction, or gives a file its name."""
    match call:
        case ast.Call(func=ast.Attribute(attr="transaction"), args=[], keywords=options):
            return not any(is_rollback(option) for option in options)
        case ast.Call(
            func=ast.Attribute(attr="run" | "execute"), args=[ast.Constant("COMMIT" | b"COMMIT"), *_]
        ):
            return True
        case ast.Call(func=ast.Attribute(attr="rename" | "replace"), args=[_], keywords=[]):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Name("os"), attr="link" | "rename" | "replace")):
            return True
    return False


def is_rollback(option: ast.keyword) -> bool:
    """Tell whether an option of a transaction has it taken back at its end."""
    match option:
        case ast.keyword(arg="force_rollback", value=ast.Constant(True)):
            return True
    return False


def name_of(node: ast.AST) -> str | None:
    """Return the name that ``durable`` gives, or that is handed to what writes a file in one step."""
    match node:
        case ast.Call(func=ast.Name("durable"), args=[ast.Constant(str(name))]):
            return name
        case ast.keyword(arg="crash_point", value=ast.Constant(str(name))):
            return name
    return None


def is_named(context: ast.AST) -> bool:
    """Tell whether a context names the step within it: itself, or by what its function is given."""
    match context:
        case ast.Call(func=ast.Name("durable"), args=[ast.Name("crash_point")]):
            return True
    return name_of(context) is not None


def unnamed(tree: ast.AST, function: str = "", *, named: bool = False) -> Iterator[str]:
    """Yield the functions with durable calls that are in no ``with durable``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield from unnamed(node, node.name)
        elif isinstance(node, ast.With):
            yield from unnamed(
                node, function, named=named or any(is_named(item.context_expr) for item in node.items)
            )
        else:
            if isinstance(node, ast.Call) and is_durable(node) and not named:
                yield function
            yield from unnamed(node, function, named=named)


def test_each_durable_step_has_a_name_of_its_own():
    names = Counter[str]()
    without = set()
    for path in PRODUCT.rglob("*.py"):
        text = path.read_text()
        if path in OF_THE_LOCATION or not SIGNS.search(text):
            continue
        tree = ast.parse(text)
        names.update(name for node in ast.walk(tree) if (name := name_of(node)))
        without |= {f"{path.relative_to(PRODUCT)}:{function}" for function in unnamed(tree)}
        handed = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.keyword) and node.arg == "crash_point"
        ]
        assert all(isinstance(value, ast.Constant) or path.name == "whole_file.py" for value in handed), path
    assert without == SAVEPOINTS | READING
    twice = [name for name, count in names.items() if count > 1]
    assert twice == []
    assert len(names) >= 30


def test_each_write_of_a_location_is_a_point():
    methods = {name for name in dir(MultipartStore) if not name.startswith("_")}
    assert methods - set(vars(CrashPoints)) == METHODS_THAT_READ
