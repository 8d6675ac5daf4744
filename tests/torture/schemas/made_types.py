"""Types of a database's own: enums, composites, domains over domains, ranges, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.torture.schemas.words import BASE, Names, Type, array_of, literal

_LABELS = ["", "s", "Größe", "a,b", 'x"y', "it's", "new\nline", " ", "NULL", "{}", "🙂", "L" * 63]


class Types:
    """All types of a database so far; ``add`` hands statements to the server and tells whether it took them."""

    def __init__(self, rng: Random, names: Names, add: Callable[[str], bool], version: int) -> None:
        self._rng = rng
        self._names = names
        self._add = add
        self.known = [one for one in BASE if one.since <= version]
        self.own: list[Type] = []
        self._version = version

    def any(self) -> Type:
        """Return a type for a column."""
        rng = self._rng
        pool = self.own if self.own and rng.random() < 0.45 else self.known
        chosen = rng.choice(pool)
        return (
            array_of(chosen)
            if rng.random() < 0.2 and "[]" not in chosen.sql and chosen.sql[-6:] != "vector"
            else chosen
        )

    def ordered(self) -> Type:
        """Return one that can be compared."""
        return self._rng.choice([one for one in self.known + self.own if one.ordered and "[]" not in one.sql])

    def make(self, schema: Callable[[], str], count: int) -> None:
        """Make types of every sort."""
        sorts = [self._enum, self._composite, self._domain, self._range]
        for number in range(count):
            made = sorts[number % 4] if number < 4 else self._rng.choice(sorts)
            self.own += made(f"{schema()}.{self._names.new('y')}")

    def _enum(self, name: str) -> list[Type]:
        labels = self._rng.sample(_LABELS, self._rng.randint(1, 6))
        if not self._add(f"CREATE TYPE {name} AS ENUM ({', '.join(map(literal, labels))})"):
            return []
        if self._rng.random() < 0.5 and self._add(
            f"ALTER TYPE {name} ADD VALUE 'late' BEFORE {literal(labels[0])}"
        ):
            labels.append("late")
        return [Type(name, lambda rng: literal(rng.choice(labels)))]

    def _composite(self, name: str) -> list[Type]:
        fields = [self.any() for _ in range(self._rng.randint(1, 5))]
        words = [f"{self._names.new('f')} {one.sql}" for one in fields]
        if not self._add(f"CREATE TYPE {name} AS ({', '.join(words)})"):
            return []
        if len(fields) > 1 and self._rng.random() < 0.3:
            gone = words[0].removesuffix(f" {fields[0].sql}")
            if self._add(f"ALTER TYPE {name} DROP ATTRIBUTE {gone}"):
                fields = fields[1:]
        draw = lambda rng: f"ROW({', '.join(one.value(rng) for one in fields)})"  # noqa: E731
        return [Type(name, draw, ordered=all(one.ordered for one in fields))]

    def _domain(self, name: str) -> list[Type]:
        over = self.any()
        words = [f"CREATE DOMAIN {name} AS {over.sql}"]
        if over.text and self._rng.random() < 0.5:
            words.append('COLLATE "C"')
        if self._rng.random() < 0.4:
            words.append(
                f"CONSTRAINT {self._names.new('k')} CHECK (VALUE IS NULL OR VALUE::text IS NOT NULL)"
            )
        if self._rng.random() < 0.3:
            words.append(f"DEFAULT {over.value(self._rng)}")
        if not self._add(" ".join(words)):
            return []
        if self._rng.random() < 0.3:
            self._add(f"ALTER DOMAIN {name} ADD CHECK (VALUE::text <> 'no such') NOT VALID")
        return [Type(name, over.draw, ordered=over.ordered)]

    def _range(self, name: str) -> list[Type]:
        over = self.ordered()
        options = [f"subtype = {over.sql}"]
        if over.text and self._rng.random() < 0.5:
            options.append('collation = "C"')
        if self._version >= 14 and self._rng.random() < 0.5:
            options.append(f"multirange_type_name = {self._names.new('m')}")
        if not self._add(f"CREATE TYPE {name} AS RANGE ({', '.join(options)})"):
            return []

        def draw(rng: Random) -> str:
            ends = [
                f"{over.draw(rng)}::{over.sql}" if rng.random() < 0.8 else f"NULL::{over.sql}"
                for _ in range(2)
            ]
            low, high = f"least({ends[0]}, {ends[1]})", f"greatest({ends[0]}, {ends[1]})"
            if "NULL" in ends[0] + ends[1]:
                low, high = ends
            return f"{name}({low}, {high}, '{rng.choice(['[]', '[)', '(]', '()'])}')"

        return [Type(name, draw)]
