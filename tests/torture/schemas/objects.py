"""Everything beside tables: code, views, triggers, rules, policies, privileges, comments, foreign data."""

from __future__ import annotations

from tests.torture.schemas.tables import Table, Tables
from tests.torture.schemas.words import literal

ROLES = ['"random owner"', '"random ""reader"""', '"random_ünï"', '"random.app"']
"""Roles of the server; they outlast a database."""
_COMMENTS = ["of it", 'it\'s \\ "so"', "two\nlines; -- and\n/* more */", "$body$ ü 🙂"]


class Objects:
    """Makes them around the tables."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._rng, self._names, self._add = tables.rng, tables.names, tables.add
        self._schema, self._version, self._chance = tables.schema, tables.version, tables.chance
        self._views: list[str] = []

    def _new(self, begin: str) -> str:
        return f"{self._schema()}.{self._names.new(begin)}"

    def _comment(self, what: str) -> None:
        if self._chance(0.4):
            self._add(f"COMMENT ON {what} IS {literal(self._rng.choice(_COMMENTS))}")

    def _owned(self, what: str) -> None:
        if self._chance(0.3):
            self._add(f"ALTER {what} OWNER TO {self._rng.choice(ROLES)}")

    def before_tables(self) -> None:
        """What says of objects to come who may use them; collations; sequences; foreign servers."""
        for role in ROLES:
            if self._chance(0.3):
                on = self._rng.choice(["TABLES", "SEQUENCES", "FUNCTIONS", "TYPES"])
                where = self._rng.choice(["", f" IN SCHEMA {self._schema()}"])
                what = "USAGE" if on == "TYPES" else "ALL"
                owner = self._rng.choice(["", f" FOR ROLE {self._rng.choice(ROLES)}"])
                self._add(
                    f"ALTER DEFAULT PRIVILEGES{owner}{where} GRANT {what} ON {on} TO {role} WITH GRANT OPTION"
                )
        if self._chance(0.3):
            self._add("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
        for _ in range(self._rng.randint(0, 3)):
            name = self._new("seq")
            how = self._rng.choice(
                ["", "AS smallint CYCLE", "INCREMENT -3 START -5 CACHE 7", "MINVALUE -9 MAXVALUE 99 START 7"]
            )
            if self._add(f"CREATE SEQUENCE {name} {how}"):
                for _ in range(self._rng.randint(0, 3)):
                    self._add(f"SELECT nextval({literal(name)})")
                self._owned(f"SEQUENCE {name}")
                self._grant(f"SEQUENCE {name}", ["USAGE", "SELECT", "UPDATE", "ALL"])
                self._comment(f"SEQUENCE {name}")
        if self._chance(0.5):
            name = self._new("coll")
            self._add(
                f"CREATE COLLATION {name} (provider = libc, locale = {self._rng.choice(['C', 'POSIX'])!r})"
            )
            self._comment(f"COLLATION {name}")
        self._foreign()
        self._search()

    def _foreign(self) -> None:
        if not self._chance(0.4):
            return
        wrapper, server = self._names.new("w"), self._names.new("srv")
        self._add(f"CREATE FOREIGN DATA WRAPPER {wrapper} OPTIONS (a 'b''c')")
        self._add(
            f"CREATE SERVER {server} TYPE 't' VERSION '1' FOREIGN DATA WRAPPER {wrapper} OPTIONS (host 'h x', \"odd Name\" '')"
        )
        self._add(
            f"CREATE USER MAPPING FOR {self._rng.choice([*ROLES, 'PUBLIC'])} SERVER {server} OPTIONS (\"user\" 'u')"
        )
        table = self._new("far")
        if self._add(
            f"CREATE FOREIGN TABLE {table} (a int OPTIONS (x 'y') NOT NULL, b text) SERVER {server} OPTIONS (c 'd')"
        ):
            self._comment(f"FOREIGN TABLE {table}")
            self._comment(f"COLUMN {table}.a")
        self._grant(f"FOREIGN SERVER {server}", ["USAGE"])
        self._owned(f"SERVER {server}")

    def _search(self) -> None:
        if not self._chance(0.4):
            return
        dictionary, configuration = self._new("dict"), self._new("conf")
        self._add(
            f"CREATE TEXT SEARCH DICTIONARY {dictionary} (TEMPLATE = simple, stopwords = english, accept = false)"
        )
        if self._add(f"CREATE TEXT SEARCH CONFIGURATION {configuration} (COPY = pg_catalog.simple)"):
            self._add(
                f"ALTER TEXT SEARCH CONFIGURATION {configuration} ALTER MAPPING FOR asciiword, word WITH {dictionary}, simple"
            )
            self._comment(f"TEXT SEARCH CONFIGURATION {configuration}")
            self._owned(f"TEXT SEARCH CONFIGURATION {configuration}")

    def code(self) -> None:
        """Functions in several languages, overloads, aggregates, operators, casts."""
        name = self._new("fn")
        options = self._rng.choice(
            [
                "IMMUTABLE",
                "STABLE STRICT",
                "SECURITY DEFINER SET search_path TO pg_catalog, pg_temp",
                "COST 7 PARALLEL SAFE LEAKPROOF",
            ]
        )
        self._add(
            f"CREATE FUNCTION {name}(a int, b text DEFAULT {literal(self._rng.choice(_COMMENTS))}) RETURNS text LANGUAGE sql {options} AS 'SELECT $1::text || $2'"
        )
        self._add(
            f"CREATE FUNCTION {name}(a text, VARIADIC c text[] DEFAULT '{{}}', OUT d int, OUT e text) LANGUAGE plpgsql AS $x$ BEGIN d := 1; e := $y$ -- Name: x; Type: TABLE; $y$; END $x$"
        )
        self._add(
            f"CREATE PROCEDURE {self._new('proc')}(INOUT a int) LANGUAGE plpgsql AS 'BEGIN COMMIT; END'"
        )
        self._comment(f"FUNCTION {name}(int, text)")
        self._owned(f"FUNCTION {name}(int, text)")
        self._grant(f"FUNCTION {name}(int, text)", ["EXECUTE"])
        if self._chance(0.3):
            self._add(f"REVOKE ALL ON FUNCTION {name}(int, text) FROM PUBLIC")
        known = [one for one in self._tables.known if one.columns]
        if known and self._version >= 14:
            table = self._rng.choice(known)
            column = table.columns[0]
            self._add(
                f"CREATE FUNCTION {self._new('atomic')}() RETURNS SETOF {column.type.sql} BEGIN ATOMIC SELECT {column.name} FROM {table.name}; SELECT NULL::{column.type.sql}; END"
            )
        if known:
            table = self._rng.choice(known)
            self._add(
                f"CREATE FUNCTION {self._new('rows')}(x {table.name}) RETURNS SETOF {table.name} LANGUAGE sql AS 'SELECT $1'"
            )
            self._add(
                f"CREATE FUNCTION {self._new('tab')}(a int) RETURNS TABLE ({self._names.new('o')} int, b {table.name})"
                f" LANGUAGE sql AS $x$SELECT 1, NULL::{table.name}$x$"
            )
        if self._tables.types.own:
            mine = self._rng.choice(self._tables.types.own)
            cast = self._new("cast")
            if self._add(
                f"CREATE FUNCTION {cast}(x {mine.sql}) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'"
            ):
                self._add(
                    f"CREATE CAST ({mine.sql} AS int) WITH FUNCTION {cast}({mine.sql}){self._rng.choice(['', ' AS ASSIGNMENT'])}"
                )
            self._comment(f"TYPE {mine.sql}")
            self._owned(f"TYPE {mine.sql}")
        plus = self._new("plus")
        if self._chance(0.5) and self._add(
            f"CREATE FUNCTION {plus}(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1 || $2'"
        ):
            schema = self._schema()
            self._add(
                f"CREATE AGGREGATE {self._new('agg')}(text) (sfunc = {plus}, stype = text, initcond = 'i''t')"
            )
            self._add(
                f"CREATE OPERATOR {schema}.|+| (leftarg = text, rightarg = text, function = {plus}, commutator = OPERATOR({schema}.|+|))"
            )
            self._comment(f"OPERATOR {schema}.|+| (text, text)")

    def views(self) -> None:
        """Views on tables and views; materialized ones on such; indexes on these."""
        sources = [one.name for one in self._tables.known] + self._views
        for _ in range(self._rng.randint(0, 4)):
            if not sources:
                return
            source, name = self._rng.choice(sources), self._new("v")
            if self._chance(0.5):
                query = self._rng.choice(
                    [
                        f"SELECT * FROM {source}",
                        f"SELECT count(*) AS {self._names.new('n')} FROM {source} UNION ALL SELECT 1",
                        f"WITH x AS (SELECT * FROM {source}) SELECT x.*, row_number() OVER () AS rn FROM x LEFT JOIN LATERAL (SELECT 1) AS y(z) ON true",
                    ]
                )
                how = self._rng.choice(["", " WITH (security_barrier)"])
                if self._add(f"CREATE VIEW {name}{how} AS {query}"):
                    self._views.append(name)
                    self._comment(f"VIEW {name}")
                    self._grant(f"TABLE {name}", ["SELECT", "INSERT", "ALL"])
            elif self._add(
                f"CREATE MATERIALIZED VIEW {name} AS SELECT count(*) AS n, min(t::text) AS m FROM {source} AS t{self._rng.choice(['', ' WITH NO DATA'])}"
            ):
                self._views.append(name)
                self._add(f"CREATE UNIQUE INDEX {self._names.new('mi')} ON {name} (n)")
                self._comment(f"MATERIALIZED VIEW {name}")
            sources = [one.name for one in self._tables.known] + self._views

    def on(self, table: Table) -> None:
        """Triggers, rules, policies, privileges and comments of a table."""
        if self._chance(0.4):
            function = self._new("trg")
            self._add(
                f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
            )
            trigger = self._names.new("tr")
            when = self._rng.choice(["BEFORE INSERT OR UPDATE", "AFTER DELETE", "AFTER UPDATE"])
            each = self._rng.choice(["ROW", "STATEMENT"])
            condition = (
                f" WHEN (NEW.{table.columns[0].name} IS NOT NULL)"
                if each == "ROW" and when == "AFTER UPDATE" and table.columns
                else ""
            )
            if self._add(
                f"CREATE TRIGGER {trigger} {when} ON {table.name} FOR EACH {each}{condition} EXECUTE FUNCTION {function}('a''b', {literal('ü')})"
            ):
                self._add(
                    f"ALTER TABLE {table.name} {self._rng.choice(['ENABLE', 'DISABLE', 'ENABLE ALWAYS', 'ENABLE REPLICA'])} TRIGGER {trigger}"
                )
                self._comment(f"TRIGGER {trigger} ON {table.name}")
            if self._chance(0.3):
                self._add(
                    f"CREATE CONSTRAINT TRIGGER {self._names.new('ct')} AFTER INSERT ON {table.name} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {function}()"
                )
            if self._chance(0.3) and not table.partitioned:
                self._add(
                    f"CREATE TRIGGER {self._names.new('rt')} AFTER UPDATE ON {table.name} REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
                )
        if self._chance(0.2):
            rule = self._names.new("r")
            if self._add(f"CREATE RULE {rule} AS ON DELETE TO {table.name} WHERE false DO INSTEAD NOTHING"):
                self._add(
                    f"ALTER TABLE {table.name} {self._rng.choice(['DISABLE', 'ENABLE ALWAYS'])} RULE {rule}"
                )
                self._comment(f"RULE {rule} ON {table.name}")
        if self._chance(0.2):
            policy = self._names.new("pol")
            self._add(f"ALTER TABLE {table.name} {self._rng.choice(['ENABLE', 'FORCE'])} ROW LEVEL SECURITY")
            kind = self._rng.choice(["PERMISSIVE", "RESTRICTIVE"])
            self._add(
                f"CREATE POLICY {policy} ON {table.name} AS {kind} FOR SELECT TO {self._rng.choice([*ROLES, 'PUBLIC'])} USING (current_user <> 'x')"
            )
            self._comment(f"POLICY {policy} ON {table.name}")
        self._grant(f"TABLE {table.name}", ["SELECT", "INSERT", "ALL", "TRUNCATE, REFERENCES"])
        if table.columns and self._chance(0.3):
            column = self._rng.choice(table.columns).name
            self._add(
                f"GRANT SELECT ({column}), UPDATE ({column}) ON {table.name} TO {self._rng.choice(ROLES)} WITH GRANT OPTION"
            )
            self._comment(f"COLUMN {table.name}.{column}")
        self._comment(f"TABLE {table.name}")
        self._owned(f"TABLE {table.name}")

    def _grant(self, what: str, privileges: list[str]) -> None:
        for role in [*ROLES, "PUBLIC"]:
            if self._chance(0.15):
                ending = " WITH GRANT OPTION" if role != "PUBLIC" and self._chance(0.4) else ""
                self._add(f"GRANT {self._rng.choice(privileges)} ON {what} TO {role}{ending}")
        if self._chance(0.05):
            self._add(f"REVOKE ALL ON {what} FROM CURRENT_USER")

    def last(self) -> None:
        """Large objects, publications, event triggers, what schemas allow."""
        for _ in range(self._rng.randint(0, 2)):
            number = self._rng.randint(10**6, 10**9)
            if self._add(
                f"SELECT lo_from_bytea({number}, decode(repeat('0aff', {self._rng.choice([0, 3, 200000])}), 'hex'))"
            ):
                self._comment(f"LARGE OBJECT {number}")
                self._owned(f"LARGE OBJECT {number}")
                self._grant(f"LARGE OBJECT {number}", ["SELECT", "ALL"])
        if self._chance(0.4):
            name = self._names.new("pub")
            tables = [one.name for one in self._tables.known]
            of = (
                "ALL TABLES"
                if self._chance(0.2) or not tables
                else f"TABLE {', '.join(self._rng.sample(tables, min(2, len(tables))))}"
            )
            if self._version >= 15 and self._chance(0.3):
                of = f"TABLES IN SCHEMA {self._schema()}"
            self._add(f"CREATE PUBLICATION {name} FOR {of} WITH (publish = 'insert, delete')")
            self._comment(f"PUBLICATION {name}")
        if self._chance(0.3):
            function, trigger = self._new("evt"), self._names.new("et")
            self._add(
                f"CREATE FUNCTION {function}() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN NULL; END'"
            )
            if self._add(
                f"CREATE EVENT TRIGGER {trigger} ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION {function}()"
            ):
                self._add(f"ALTER EVENT TRIGGER {trigger} {self._rng.choice(['DISABLE', 'ENABLE ALWAYS'])}")
                self._comment(f"EVENT TRIGGER {trigger}")
