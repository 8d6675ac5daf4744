"""What can be changed in a module: the operators of cosmic-ray, and two of our own."""

from __future__ import annotations

import ast
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cosmic_ray.plugins
import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator

from scripts.mutants.record import Place, digests_of, owners_of

_LEFT_ALONE = re.compile(r"TYPE_CHECKING|os\.kill|killpg|^class .*frozen=True|^\*,$|^_log\.")
"""A changed number would be another signal, or another process; slots, frozen classes and
keywords by name alone behave as others do. Lines of the log are for developers."""
_HARDLY_CHANGE = re.compile(r"_(Eq_Is|NotEq_IsNot|Is_Eq|IsNot_NotEq)$")
"""Operators whose changes nobody notices: Python keeps one object of each small number, and of None."""
_SAME = {("return False", "return")}


class RemoveStatement(Operator):  # type: ignore[misc]
    """Replaces a call whose result nobody takes, a raise, or an augmented assignment by ``pass``."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        if node.type == "simple_stmt" and _is_effect(node.children[0]):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:  # noqa: ARG002
        nothing = parso.parse("pass").children[0]
        nothing.prefix = node.children[0].get_first_leaf().prefix
        node.children[0] = nothing
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class ReturnNothing(Operator):  # type: ignore[misc]
    """Returns None, or an empty text where a text is returned."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        if node.type == "return_stmt" and node.children[1].get_code().strip() != "None":
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:  # noqa: ARG002
        node.children[1] = parso.parse(" None").children[0]
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


def _is_effect(node: Any) -> bool:
    if node.type == "expr_stmt":
        return getattr(node.children[1], "type", "") == "operator" and node.children[1].value != "="
    if node.type == "raise_stmt":
        return True
    last = node.children[-1] if node.type == "atom_expr" else None
    return last is not None and bool(last.type == "trailer" and last.children[0] == "(")


_OWN = {"RemoveStatement": RemoveStatement, "ReturnNothing": ReturnNothing}


@dataclass(frozen=True, slots=True)
class Mutant:
    """A module with one change. ``lines`` are those of the statement that holds it, empty outside of functions;
    ``around``: those of its function.
    """

    place: Place
    operator: str
    line: int
    before: str
    after: str
    lines: frozenset[int]
    around: frozenset[int]
    code: str

    @property
    def module(self) -> str:
        return self.place.module


class Places:
    """Where a module can be changed: all places, also where a change turns out to do nothing."""

    def __init__(self, module: str, code: str) -> None:
        self._code = code
        self._original = _meaning(ast.parse(code))
        self._changes: dict[Place, tuple[int, list[tuple[str, Any, int]]]] = {}
        self._owners, digests = owners_of(code), digests_of(code)
        starts: dict[Any, list[tuple[str, Any, int]]] = defaultdict(list)
        nodes = list(ast_nodes(get_ast(code)))
        for name, operator in _operators():
            positions = (start for node in nodes for start, _ in operator.mutation_positions(node))
            for occurrence, start in enumerate(positions):
                starts[_kind(name), start].append((name, operator, occurrence))
        counts: Counter[tuple[str, str]] = Counter()
        for (kind, (line, _)), changes in sorted(starts.items()):
            function = self._owners.get(line, "")
            place = Place(module, function, digests.get(function, ""), f"{kind} {counts[function, kind]}")
            counts[function, kind] += 1
            self._changes[place] = line, changes

    def __iter__(self) -> Iterator[Place]:
        return iter(self._changes)

    def mutant(self, place: Place, known: Mapping[str, str]) -> Mutant | None:
        """Return the mutant of a place: the one that a result is known of, else one that the place decides.

        None if only an annotation changes, if it does not compile, or is left alone.
        """
        line, changes = self._changes[place]
        again = (
            self._mutant(place, line, change) for change in changes if change[0] == known.get("operator")
        )
        for mutant in again:
            if mutant is not None and mutant.after == known["after"]:
                return mutant
        likely = [change for change in changes if not _HARDLY_CHANGE.search(change[0])]
        return self._mutant(place, line, random.Random(place.seed).choice(likely or changes))

    def _mutant(self, place: Place, line: int, change: tuple[str, Any, int]) -> Mutant | None:
        name, operator, occurrence = change
        try:
            mutated = mutate_code(self._code, operator, occurrence)
            if mutated is None or _meaning(ast.parse(mutated)) == self._original:
                return None
        except (SyntaxError, AttributeError):  # cosmic-ray itself stumbles over names with a dot
            return None
        before, after = _difference(self._code.splitlines(), mutated.splitlines())
        if _LEFT_ALONE.search(before) or (before, after) in _SAME:
            return None
        if after == before.replace("strict=True", "strict=False"):  # a guard
            return None
        lines = _statement(ast.parse(self._code), line)
        around = frozenset(line for line, owner in self._owners.items() if owner == place.function)
        return Mutant(place, name, line, before, after, lines, around if lines else lines, mutated)


def _operators() -> Iterator[tuple[str, Any]]:
    for name in sorted(cosmic_ray.plugins.operator_names()):
        operator = cosmic_ray.plugins.get_operator(name)
        if not operator.arguments() and "no-op" not in name:
            yield name.removeprefix("core/"), operator()
    for name, own in _OWN.items():
        yield name, own()


def _kind(operator: str) -> str:
    return re.sub(r"(Replace\w+?Operator)_.*", r"\1", operator)


def _difference(before: Sequence[str], after: Sequence[str]) -> tuple[str, str]:
    """Return the lines that differ, of both texts."""
    start = next((n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
    same = 0
    while same < min(len(before), len(after)) - start and before[-1 - same] == after[-1 - same]:
        same += 1
    removed, added = before[start : len(before) - same], after[start : len(after) - same]
    return " ".join(" ".join(removed).split()), " ".join(" ".join(added).split())


class _WithoutNotes(ast.NodeTransformer):
    """Drops what does nothing: annotations and docstrings."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(0)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)


def _meaning(tree: ast.Module) -> str:
    return ast.dump(_WithoutNotes().visit(tree))


def _statement(tree: ast.Module, line: int) -> frozenset[int]:
    """Return the lines of the innermost statement at a line, of a function only."""
    inside: ast.stmt | None = None
    in_function = False
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno):
            if inside is None or node.lineno >= inside.lineno:
                inside = node
            in_function |= isinstance(node, ast.FunctionDef) and node.body[0].lineno <= line
    if inside is None or not in_function:
        return frozenset()
    body = getattr(inside, "body", None)
    last = body[0].lineno - 1 if body else inside.end_lineno or inside.lineno
    return frozenset(range(inside.lineno, max(last, line) + 1))
