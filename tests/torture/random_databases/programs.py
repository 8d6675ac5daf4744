"""Views on views, routines, triggers, events and sequences, each made under a session of its own."""

import random

from tests.torture.random_databases.columns import any_type
from tests.torture.random_databases.tables import Table, Tables
from tests.torture.random_databases.words import alternate, literal, quote, text

_MODES = (
    *(
        "",
        "STRICT_ALL_TABLES",
        "ANSI_QUOTES",
        "PIPES_AS_CONCAT,NO_ZERO_DATE",
        "NO_BACKSLASH_ESCAPES",
        "HIGH_NOT_PRECEDENCE",
    ),
    *(
        "IGNORE_SPACE",
        "ANSI",
        "TRADITIONAL",
        "PAD_CHAR_TO_FULL_LENGTH",
        "REAL_AS_FLOAT",
        "NO_UNSIGNED_SUBTRACTION",
    ),
)
_CLIENTS = ("utf8mb4", "utf8mb4", "utf8mb4", "utf8mb3", "latin1", "ascii")
_SECURITY = ("", " SQL SECURITY INVOKER", " SQL SECURITY DEFINER")
_DATA = ("", " DETERMINISTIC", " NO SQL", " READS SQL DATA", " MODIFIES SQL DATA", " CONTAINS SQL")


class Programs:
    """Makes what acts on ``tables``. ``run`` tells whether the server has taken a statement."""

    def __init__(self, dice: random.Random, run, tables: Tables, *, mariadb: bool) -> None:
        self._dice, self._run, self._tables, self._mariadb = dice, run, tables, mariadb
        self._backslashes = False
        self._views: list[tuple[str, list[str]]] = []

    def make(self) -> None:
        makers = [
            self._function,
            self._procedure,
            self._view,
            self._view,
            self._view,
            self._trigger,
            self._trigger,
        ]
        makers += [self._event]
        if self._mariadb:
            makers += [self._sequence, self._package]
        for _ in range(self._dice.randint(4, 14)):
            self._session()
            self._dice.choice(makers)()

    def _session(self) -> None:
        mode = self._dice.choice(_MODES)
        self._backslashes = "NO_BACKSLASH" in mode
        self._run(f"SET sql_mode = '{mode}'")
        self._run(f"SET time_zone = '{self._dice.choice(('+00:00', '-03:30', '+13:00'))}'")
        self._run.charset = self._dice.choice(_CLIENTS)
        self._run(f"SET NAMES {self._run.charset}")

    def _word(self) -> str:
        return (alternate if self._backslashes else literal)(text(self._dice)[:120])

    def _comment(self) -> str:
        return f" COMMENT {self._word()}" if self._dice.random() < 0.5 else ""

    def _type(self) -> str:
        while True:
            sql_type = any_type(self._dice, mariadb=self._mariadb)
            if "COMPRESSED" not in sql_type.sql and "SRID" not in sql_type.sql:
                return sql_type.sql.replace(" NULL", "")

    def _table(self) -> Table:
        return self._dice.choice(self._tables.found)

    def _body(self) -> str:
        table = self._table()
        column = self._dice.choice(table.columns)
        return self._dice.choice(
            (
                f"SELECT {self._word()} INTO @moved",
                f"SET @moved = CONCAT({self._word()}, 'ü;', 1) -- note",
                f"SELECT COUNT({column.label}) INTO @moved FROM {table.label} /* ; */",
                f"BEGIN DECLARE `v;` {self._type()}; # odd\n SET @moved = 1; IF 1 < 2 THEN SET @moved = {self._word()}; END IF; END",
                "BEGIN DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN END; l: LOOP LEAVE l; END LOOP; SET @moved = 2;\r\n\tEND",
                "SET @moved = 1",
            )
        )

    def _function(self) -> None:
        name, args = (
            quote(self._tables.names()),
            [f"{quote(self._tables.names())} {self._type()}" for _ in range(2)],
        )
        options = self._dice.choice(_DATA) + self._dice.choice(_SECURITY) + self._comment()
        value = self._dice.choice(("1", "NULL", self._word()))
        self._run(
            f"CREATE FUNCTION {name}({', '.join(args)}) RETURNS {self._type()}{options} BEGIN {self._body()}; RETURN {value}; END"
        )

    def _procedure(self) -> None:
        args = ", ".join(
            f"{self._dice.choice(('IN ', 'OUT ', 'INOUT ', ''))}{quote(self._tables.names())} {self._type()}"
            for _ in range(self._dice.randint(0, 3))
        )
        options = self._dice.choice(_DATA) + self._dice.choice(_SECURITY) + self._comment()
        self._run(f"CREATE PROCEDURE {quote(self._tables.names())}({args}){options} {self._body()}")

    def _view(self) -> None:
        dice, table = self._dice, self._table()
        sources = [(table.name, [column.name for column in table.columns]), *self._views]
        name, columns = dice.choice(sources)
        one, other = (quote(dice.choice(columns)) for _ in range(2))
        names = [self._tables.names() for _ in range(2)]
        a, b = map(quote, names)
        mine = self._tables.names()
        head = (
            dice.choice(("", "ALGORITHM=MERGE ", "ALGORITHM=TEMPTABLE "))
            + dice.choice(_SECURITY).strip()
            + " "
        )
        query = dice.choice(
            (
                f"SELECT {one} AS {a}, {other} AS {b} FROM {quote(name)}",
                f"SELECT CONCAT({one}, {self._word()}) AS {a}, {other} AS {b} FROM {quote(name)} WHERE {one} IS NOT NULL",
                f"SELECT COUNT(*) AS {a}, {one} AS {b} FROM {quote(name)} GROUP BY {one} HAVING {a} > 0",
                f"SELECT x.{one} AS {a}, y.{other} AS {b} FROM {quote(name)} x LEFT JOIN {quote(name)} y ON x.{one} = y.{other}",
                f"SELECT {self._word()} AS {a}, _latin1 X'E4' AS {b}",
                f"SELECT {one} AS {a}, 1 AS {b} FROM {quote(name)} UNION ALL SELECT {other}, 2 FROM {quote(name)} LIMIT 5",
                f"WITH c AS (SELECT {one} AS {a} FROM {quote(name)}) SELECT {a}, {self._word()} AS {b} FROM c",
                f"SELECT {one} AS {a}, ROW_NUMBER() OVER (ORDER BY {other}) AS {b} FROM {quote(name)}",
                f"SELECT CAST({one} AS CHAR CHARACTER SET utf8mb4) COLLATE utf8mb4_bin AS {a}, NOT {other} AS {b} FROM {quote(name)}",
            )
        )
        check = dice.choice(("", "", " WITH CHECK OPTION", " WITH LOCAL CHECK OPTION"))
        listed = f" ({a}, {b})" if dice.random() < 0.3 else ""
        if self._run(f"CREATE {head}VIEW {quote(mine)}{listed} AS {query}{check}"):
            self._views.append((mine, names))

    def _trigger(self) -> None:
        table, dice = self._table(), self._dice
        when = f"{dice.choice(('BEFORE', 'AFTER'))} {dice.choice(('INSERT', 'UPDATE', 'DELETE'))}"
        self._run(
            f"CREATE TRIGGER {quote(self._tables.names())} {when} ON {table.label} FOR EACH ROW {self._body()}"
        )

    def _event(self) -> None:
        when = self._dice.choice(
            (
                "EVERY 1 DAY STARTS '2031-01-01 00:00:00'",
                "EVERY '1:30' HOUR_MINUTE STARTS '2031-02-01 12:00:00' ENDS '2035-01-01 00:00:00'",
                "AT '2037-01-01 00:00:00'",
                "EVERY 3 MONTH STARTS '2031-01-31 00:00:00'",
            )
        )
        kept = self._dice.choice(("", " ON COMPLETION PRESERVE", " ON COMPLETION NOT PRESERVE"))
        state = self._dice.choice(("", " DISABLE", " ENABLE"))
        self._run(
            f"CREATE EVENT {quote(self._tables.names())} ON SCHEDULE {when}{kept}{state}{self._comment()} DO {self._body()}"
        )

    def _sequence(self) -> None:
        name = quote(self._tables.names())
        options = self._dice.choice(
            (
                "",
                " START WITH 5 INCREMENT BY -2 MINVALUE -50 MAXVALUE 10 CYCLE CACHE 3",
                " INCREMENT BY 0",
                " NOCACHE MAXVALUE 1000",
            )
        )
        if self._run(f"CREATE SEQUENCE {name}{options}{self._comment()}"):
            for _ in range(self._dice.randint(0, 9)):
                self._run(f"DO NEXTVAL({name})")

    def _package(self) -> None:
        name = quote(self._tables.names())
        self._run("SET sql_mode = 'ORACLE'")
        if self._run(
            f"CREATE PACKAGE {name} COMMENT 'ü''' AS FUNCTION f RETURN INT; PROCEDURE p(a INT); END"
        ):
            self._run(
                f"CREATE PACKAGE BODY {name} AS x INT := 1; FUNCTION f RETURN INT AS BEGIN RETURN x; END;"
                " PROCEDURE p(a INT) AS BEGIN NULL; END; END"
            )
