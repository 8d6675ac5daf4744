"""A random database of a seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import psycopg

from tests.torture.schemas.made_types import Types
from tests.torture.schemas.objects import ROLES, Objects
from tests.torture.schemas.tables import Tables
from tests.torture.schemas.words import Names


@dataclass(slots=True)
class Made:
    """How many statements a server took, and which it refused, with its reason: nothing random fits always."""

    taken: int = 0
    refused: list[str] = field(default_factory=list)


def make_database(url: str, seed: str) -> Made:  # noqa: C901 - one step after the other
    """Fill an empty database."""
    rng, made = Random(seed), Made()
    with psycopg.connect(url, autocommit=True, client_encoding="UTF8") as connection:

        def add(statement: str) -> bool:
            try:
                connection.execute(statement.encode())
            except psycopg.Error as exc:
                if connection.closed:
                    raise
                made.refused.append(f"{str(exc).splitlines()[0]}: {statement}")
                return False
            made.taken += 1
            return True

        known = {row[0] for row in connection.execute("SELECT quote_ident(rolname) FROM pg_roles")}
        for role in ROLES:
            if role not in known:
                add(f"CREATE ROLE {role} NOLOGIN")
        version = connection.info.server_version // 10000
        names = Names(rng)
        schemas = ["public"]
        for _ in range(rng.randint(1, 4)):
            name = names.new("s")
            owner = rng.choice(["", f" AUTHORIZATION {rng.choice(ROLES)}"])
            if add(f"CREATE SCHEMA {name}{owner}"):
                schemas.append(name)
                add(f"GRANT {rng.choice(['USAGE', 'CREATE', 'ALL'])} ON SCHEMA {name} TO {rng.choice(ROLES)}")

        def schema() -> str:
            return rng.choice(schemas)

        types = Types(rng, names, add, version)
        tables = Tables(rng, names, types, add, schema, version)
        objects = Objects(tables)
        objects.before_tables()
        types.make(schema, rng.randint(4, 14))
        for _ in range(rng.randint(3, 12)):
            tables.make()
        tables.refer()
        for _ in range(rng.randint(1, 3)):
            objects.code()
        objects.views()
        for table in tables.known:
            objects.on(table)
        objects.last()
        owner, other = rng.sample(ROLES, 2)
        add(f"GRANT {owner} TO {other} WITH ADMIN OPTION")
    return made
