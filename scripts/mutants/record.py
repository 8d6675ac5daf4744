"""What became of each function: ``record.jsonl``, a line a function, with a digest of its text.

A function that was changed since has another digest, so the record answers which functions have no result for the text
of today. Code outside of functions counts as a function without a name.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache

from scripts.mutants.table import CHECKOUT, Package, modules_of

_RECORD = CHECKOUT / "scripts" / "mutants" / "record.jsonl"


@dataclass(frozen=True, slots=True)
class Place:
    """Where code can be changed in one way: the nth place of a kind in a function with that digest."""

    module: str
    function: str
    digest: str
    name: str

    @property
    def seed(self) -> str:
        return f"{self.function} {self.digest} {self.name}"


@dataclass(frozen=True, slots=True)
class Tried:
    """How many places a function has, how many changes of them the tests noticed, and which ones survived."""

    module: str
    function: str
    digest: str
    places: int
    killed: int
    survived: tuple[tuple[str, str], ...]

    @property
    def tried(self) -> int:
        return self.killed + len(self.survived)


def owners_of(code: str) -> dict[int, str]:
    """Return by line of a module which function or method holds it; lines outside of functions are missing."""
    owners: dict[int, str] = {}
    for name, node in _functions(ast.parse(code)):
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        owners.update(dict.fromkeys(range(first, (node.end_lineno or node.lineno) + 1), name))
    return owners


def digests_of(code: str) -> dict[str, str]:
    """Return by function the digest of its text, without comments, docstrings, blank lines and imports."""
    owners, left_out = owners_of(code), _silent_lines(ast.parse(code))
    texts: dict[str, list[str]] = defaultdict(list)
    for number, line in enumerate(code.splitlines(), 1):
        if number not in left_out and line.strip() and not line.lstrip().startswith("#"):
            texts[owners.get(number, "")].append(line.rstrip())
    return {name: hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] for name, lines in texts.items()}


def _functions(
    node: ast.AST, prefix: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield functions and methods; those inside of functions belong to them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, child
        else:
            inner = f"{prefix}{child.name}." if isinstance(child, ast.ClassDef) else prefix
            yield from _functions(child, inner)


def _silent_lines(tree: ast.Module) -> set[int]:
    """Return the lines of docstrings and imports."""
    return {
        number
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        or (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        )
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


@cache
def digests_today(module: str) -> dict[str, str]:
    """Return by function the digest of its text of today; nothing for a module that is gone."""
    path = CHECKOUT / module
    return digests_of(path.read_text(encoding="utf-8")) if path.exists() else {}


def read_record() -> dict[tuple[str, str], Tried]:
    """Return by module and function what was tried. Of two lines for one text that with more results counts."""
    record: dict[tuple[str, str], Tried] = {}
    for line in _RECORD.read_text(encoding="utf-8").splitlines() if _RECORD.exists() else ():
        values = json.loads(line)
        keep(record, Tried(**{**values, "survived": tuple(map(tuple, values["survived"]))}))
    return record


def keep(record: dict[tuple[str, str], Tried], tried: Tried) -> None:
    """Put a function into the record, unless what is there says more of the text of today. A function of which every
    place was tried may have had more places: a change that counted once may be left alone now.
    """
    key = tried.module, tried.function
    before, today = record.get(key), digests_today(tried.module).get(tried.function)
    is_whole = tried.digest == today and tried.tried == tried.places
    if (
        before is None
        or is_whole
        or (tried.digest == today, tried.tried) >= (before.digest == today, before.tried)
    ):
        record[key] = tried


def write_record(record: Iterable[Tried]) -> None:
    """Write it, without functions that are no more."""
    lines = [
        json.dumps(asdict(tried), ensure_ascii=False)
        for tried in sorted(record, key=lambda tried: (tried.module, tried.function))
        if tried.function in digests_today(tried.module)
    ]
    _RECORD.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def untried(package: Package) -> Iterator[tuple[str, str, str]]:
    """Yield each function of a package of which not every place has a result for today's text, and what is missing."""
    record = read_record()
    for module in modules_of(package):
        for function, digest in digests_today(module).items():
            tried = record.get((module, function))
            if tried is None:
                yield module, function, "no result"
            elif tried.digest != digest:
                yield module, function, "changed since"
            elif tried.tried < tried.places:
                yield module, function, f"{tried.tried} of {tried.places} places"
