"""The shape of the code: few parameters, few modules in a folder, no scraps of modules, no name with many meanings.

The limits are today's figures. They may be lowered, not raised.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from functools import cache
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("exporters", "migrate", "scripts")
MOST_PARAMETERS = 12
MOST_MODULES = 20
MOST_MEANINGS = 2
SHORT_LINES = 60
MOST_SHORT = 9
"""Modules that are shorter than ``SHORT_LINES`` and imported by one other module only."""
MOST_GETATTR = 0
"""Calls of getattr or hasattr on a store, a bucket, or what wraps one."""

STORAGE_NAMES = {
    "bucket",
    "client",
    "destination",
    "inner",
    "origin",
    "store",
    "_client",
    "_inner",
    "_store",
}


ROLE = re.compile(r"""(?:CREATE (?:ROLE|USER) |login\(\w*postgres, ["'])([a-z_]\w*)""")

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
LOOKED_AT = FUNCTIONS | ast.ClassDef | ast.Import | ast.ImportFrom | ast.Call


@cache
def modules():
    """Every module of the product by its path below the root, as the nodes that the tests look at."""
    paths = sorted(chain.from_iterable((ROOT / room).rglob("*.py") for room in ROOMS))
    return {str(path.relative_to(ROOT)): _nodes(ast.parse(path.read_text())) for path in paths}


def _nodes(tree):
    return [node for node in ast.walk(tree) if isinstance(node, LOOKED_AT)]


def nodes(kind):
    """Return each node of a kind with the path of its module."""
    return [(path, node) for path, found in modules().items() for node in found if isinstance(node, kind)]


def module_of(path):
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def importers():
    """By module, the files that import it."""
    known = {module_of(path) for path in modules()}
    found = defaultdict(set)
    for path, node in nodes(ast.Import | ast.ImportFrom):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        else:
            names = {f"{node.module}.{alias.name}" for alias in node.names} & known or {node.module}
        for name in names & known:
            found[name].add(path)
    return found


def test_no_function_has_many_parameters():
    many = {
        f"{path}:{node.name}"
        for path, node in nodes(FUNCTIONS)
        if len(node.args.posonlyargs) + len(node.args.args) + len(node.args.kwonlyargs) > MOST_PARAMETERS
    }
    assert many == set()


def test_no_folder_has_many_modules():
    count = Counter(str(Path(path).parent) for path in modules())
    assert {folder: number for folder, number in count.items() if number > MOST_MODULES} == {}


def test_few_modules_are_scraps_of_another():
    by = importers()
    scraps = [
        f"{path} <- {next(iter(by[module_of(path)]))}"
        for path in modules()
        if len(by[module_of(path)]) == 1
        and not path.endswith("__init__.py")
        and len((ROOT / path).read_text().splitlines()) < SHORT_LINES
    ]
    assert len(scraps) <= MOST_SHORT, "\n".join(scraps)


def test_a_class_name_has_one_meaning_or_two():
    count = Counter(node.name for _, node in nodes(ast.ClassDef))
    assert {name: number for name, number in count.items() if number > MOST_MEANINGS} == {}


def test_what_a_store_can_do_is_declared():
    """Optional abilities are protocols: nothing is found out by getattr."""
    probes = []
    for path, node in nodes(ast.Call):
        if not (isinstance(node.func, ast.Name) and node.func.id in {"getattr", "hasattr"}):
            continue
        if isinstance(node.args[1], ast.Constant):
            probed = node.args[0]
            name = probed.attr if isinstance(probed, ast.Attribute) else getattr(probed, "id", "")
            if name in STORAGE_NAMES:
                probes.append(f"{path}:{node.lineno}")
    assert len(probes) <= MOST_GETATTR, "\n".join(probes)


def test_a_role_of_a_test_has_a_name_of_its_own():
    """Roles belong to a server, which files share: two files whose roles have one name fail when they meet."""
    users = defaultdict(set)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in ROLE.findall(path.read_text(encoding="utf-8")):
            users[name].add(str(path.relative_to(ROOT)))
    assert {name: files for name, files in users.items() if len(files) > 1} == {}
