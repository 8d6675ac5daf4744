"""Tables with keys, partitions, foreign keys and rows. What a server refuses of it is left out there."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.torture.random_databases.columns import Column, any_type, charset_of
from tests.torture.random_databases.words import Namer, literal, quote, text

_ACTIONS = (
    "",
    " ON DELETE CASCADE",
    " ON UPDATE CASCADE",
    " ON DELETE SET NULL",
    " ON UPDATE SET NULL ON DELETE RESTRICT",
)


@dataclass(slots=True)
class Table:
    """A table, as far as it is known."""

    name: str
    columns: list[Column] = field(default_factory=list)

    @property
    def label(self) -> str:
        return quote(self.name)


class Tables:
    """Makes the statements of a few tables. ``run`` tells whether the server has taken one."""

    def __init__(self, dice: random.Random, run, *, mariadb: bool) -> None:
        self._dice, self._run, self._mariadb = dice, run, mariadb
        self.names = Namer(dice)
        self.found: list[Table] = []

    def make(self) -> None:
        wanted = self._dice.randint(3, 7)
        while len(self.found) < wanted:
            self._table()
        for table in self.found:
            for statement in self._foreign(table):
                self._run(statement)
        for table in self.found:
            self._rows(table)

    def _chance(self, share: float) -> bool:
        return self._dice.random() < share

    def _table(self) -> None:
        table, counted = Table(self.names()), self._chance(0.5)
        items = []
        if counted:
            number = Column(self.names(), any_whole(self._dice), generated=False)
            table.columns.append(number)
            items.append(f"{number.label} {number.type.sql} NOT NULL AUTO_INCREMENT PRIMARY KEY")
        column, words = self._column(table)
        made = f"CREATE TABLE {table.label} ({', '.join([*items, words])}){self._options(counted)}"
        if not self._run(made):
            return
        table.columns.append(column)
        for _ in range(self._dice.randint(0, 9)):
            column, words = self._column(table)
            if self._run(f"ALTER TABLE {table.label} ADD {words}{self._location(table)}"):
                table.columns.append(column)
        self.found.append(table)
        self._complete(table, counted=counted)

    def _complete(self, table: Table, *, counted: bool) -> None:
        for statement in self._keys(table, counted=counted):
            self._run(statement)
        if self._chance(0.4):
            partitions = self._partitions(table)
            computed = any(column.generated for column in table.columns)
            if not (
                self._mariadb and computed and " COLUMNS " in partitions
            ):  # its purge crashes at such a table
                self._run(partitions)
        if self._mariadb and self._chance(0.15):
            self._run(f"ALTER TABLE {table.label} ADD SYSTEM VERSIONING")
            if self._chance(0.4):
                self._run(f"ALTER TABLE {table.label} PARTITION BY SYSTEM_TIME LIMIT 3 PARTITIONS 3")

    def _location(self, table: Table) -> str:
        return self._dice.choice(("", "", "", " FIRST", f" AFTER {self._dice.choice(table.columns).label}"))

    def _options(self, counted: bool) -> str:
        dice = self._dice
        charset = charset_of(dice, self._mariadb).replace(" COLLATE", " DEFAULT COLLATE")
        engines = ("InnoDB",) * 9 + (("Aria", "MyISAM", "MyISAM") if self._mariadb else ("MyISAM",))
        charset += f" ENGINE={dice.choice(engines)}"
        if counted and self._chance(0.4):
            charset += f" AUTO_INCREMENT={dice.choice((1, 5, 100))}"
        if self._chance(0.3):
            charset += f" COMMENT={literal(text(dice)[:300])}"
        if self._chance(0.2):
            charset += f" ROW_FORMAT={dice.choice(('COMPACT', 'DYNAMIC', 'REDUNDANT', 'COMPRESSED'))}"
        if self._chance(0.2):
            charset += dice.choice(
                (
                    " STATS_PERSISTENT=0",
                    " CHECKSUM=1",
                    " AVG_ROW_LENGTH=100",
                    " MIN_ROWS=3 MAX_ROWS=100",
                    " DELAY_KEY_WRITE=1",
                )
            )
        if self._mariadb and self._chance(0.1):
            charset += dice.choice(
                (" PAGE_CHECKSUM=1", " `PAGE_COMPRESSED`=1", " TRANSACTIONAL=1", " PACK_KEYS=1")
            )
        return charset

    def _column(self, table: Table) -> tuple[Column, str]:
        dice = self._dice
        column_type = any_type(dice, mariadb=self._mariadb)
        generated = bool(table.columns) and self._chance(0.2)
        column = Column(self.names(), column_type, generated)
        words = f"{column.label} {column_type.sql}"
        if generated:
            words += f" GENERATED ALWAYS AS ({self._expression(table)}) {dice.choice(('VIRTUAL', 'STORED'))}"
        else:
            words += self._default(column, table)
        if self._chance(0.1):
            words += " INVISIBLE"
        if self._chance(0.25):
            words += f" COMMENT {literal(text(dice)[:200])}"
        if self._chance(0.15):
            words += f" CHECK ({self._check(column)})"
        return column, words

    def _default(self, column: Column, table: Table) -> str:
        dice, kind = self._dice, column.type.family
        found = ""
        if self._chance(0.3):
            found += " NOT NULL"
        if kind in {"timestamp", "datetime"} and self._chance(0.4):
            digits = column.type.sql.partition("(")[2].partition(")")[0]
            now = f"CURRENT_TIMESTAMP({digits})" if digits else "CURRENT_TIMESTAMP"
            found += f" DEFAULT {now}" + dice.choice(("", f" ON UPDATE {now}"))
        elif self._chance(0.4):
            value = column.type.value(dice)
            found += f" DEFAULT {value}" if self._chance(0.6) else f" DEFAULT ({value})"
        elif self._chance(0.3):
            expressions = [
                "UUID()",
                "(1 + 1)",
                "CONCAT('a''', 'ü', \"q\")",
                "(NOW() + INTERVAL 1 DAY)",
                "RAND() * 10",
            ]
            expressions += [
                "(X'C3A4')",
                "(_latin1 X'E4')",
                "CHAR_LENGTH('日本')",
                "(IF(1 < 2, 'a\\\\b', 'c'))",
            ]
            expressions += [f"(COALESCE({dice.choice(table.columns).label}, 1))"] if table.columns else []
            found += f" DEFAULT ({dice.choice(expressions)})"
        return found

    def _expression(self, table: Table) -> str:
        one, other = (self._dice.choice(table.columns).label for _ in range(2))
        return self._dice.choice(
            (
                f"CONCAT({one}, '-', {other})",
                f"{one} + 1",
                f"HEX({one})",
                f"COALESCE({one}, {other})",
                f"IF({one} > {other}, 'it''s', \"\\\\ü\")",
                f"LENGTH({one}) * 2",
                f"UPPER({one})",
                f"CONCAT({one}, _latin1 X'E4', N'ü')",
                f"JSON_OBJECT('k', {one})",
                f"YEAR({one})",
                f"{one} IS NULL",
                f"CAST({one} AS CHAR(20))",
                f"{one} LIKE 'a\\\\_%' ESCAPE '|'",
                f"CASE WHEN {one} IN (1, 2) THEN {other} ELSE NULL END",
                f"LEFT({one}, 2) REGEXP '^\\\\w'",
            )
        )

    def _check(self, column: Column) -> str:
        return self._dice.choice(
            (
                f"{column.label} IS NULL OR {column.label} IS NOT NULL",
                f"LENGTH({column.label}) < 100000",
                f"{column.label} <> 'it''s \\\\ \"q\"'",
                f"COALESCE({column.label}, 1) IS NOT NULL",
                f"CONCAT({column.label}, ';') <> ');, KEY `x`'",
            )
        )

    def _keys(self, table: Table, *, counted: bool) -> Iterator[str]:
        dice = self._dice
        for _ in range(dice.randint(0, 5)):
            columns = dice.sample(table.columns, dice.randint(1, min(3, len(table.columns))))
            parts = ", ".join(self._part(column) for column in columns)
            kinds = ["KEY", "KEY", "KEY", "UNIQUE KEY", "UNIQUE KEY", "FULLTEXT KEY", "SPATIAL KEY"]
            kind = dice.choice(kinds)
            if kind != "SPATIAL KEY" and self._mariadb and any(one.type.family == "shape" for one in columns):
                continue  # MariaDB has it by their first bytes, and prints it as if by all
            words = f"{kind} {quote(self.names())} ({parts})"
            if self._chance(0.2):
                words += dice.choice(
                    (
                        " USING BTREE",
                        " USING HASH",
                        " KEY_BLOCK_SIZE=4",
                        f" COMMENT {literal(text(dice)[:100])}",
                    )
                )
            if self._chance(0.1):
                words += " IGNORED" if self._mariadb else " INVISIBLE"
            if not counted and self._chance(0.3):
                words = f"PRIMARY KEY ({parts})"
            yield f"ALTER TABLE {table.label} ADD {words}"
        if self._chance(0.2):
            one = dice.choice(table.columns)
            enforced = " NOT ENFORCED" if not self._mariadb and self._chance(0.5) else ""
            yield f"ALTER TABLE {table.label} ADD CONSTRAINT {quote(self.names())} CHECK ({self._check(one)}){enforced}"

    def _part(self, column: Column) -> str:
        prefix = f"({self._dice.randint(1, 20)})" if self._chance(0.3) else ""
        if not self._mariadb and self._chance(0.1):
            return f"({self._dice.choice((f'LENGTH({column.label})', f'{column.label} + 1', f'LOWER({column.label})'))})"
        return column.label + prefix + self._dice.choice(("", "", " DESC", " ASC"))

    def _partitions(self, table: Table) -> str:
        dice, one = self._dice, self._dice.choice(table.columns)
        a, b, c = (quote(self.names()) for _ in range(3))
        comment = f" COMMENT = {literal(text(dice)[:50])}" if self._chance(0.3) else ""
        sub = dice.choice(("", "", f" SUBPARTITION BY HASH ({one.label}) SUBPARTITIONS 2"))
        low, high = sorted((one.type.value(dice), one.type.value(dice)))
        return f"ALTER TABLE {table.label} PARTITION BY " + dice.choice(
            (
                f"HASH ({one.label}) PARTITIONS 3",
                f"LINEAR HASH ({one.label}) PARTITIONS 3",
                f"KEY ({one.label}) PARTITIONS 2",
                "KEY () PARTITIONS 3",
                f"LINEAR KEY ALGORITHM=2 ({one.label}) PARTITIONS 2",
                (
                    f"RANGE ({one.label}){sub} (PARTITION {a} VALUES LESS THAN (0){comment},"
                    f" PARTITION {b} VALUES LESS THAN (100), PARTITION {c} VALUES LESS THAN MAXVALUE)"
                ),
                (
                    f"RANGE COLUMNS ({one.label}){sub} (PARTITION {a} VALUES LESS THAN ({low}){comment},"
                    f" PARTITION {b} VALUES LESS THAN ({high}), PARTITION {c} VALUES LESS THAN (MAXVALUE))"
                ),
                f"LIST ({one.label}) (PARTITION {a} VALUES IN (0, 1, NULL), PARTITION {b} VALUES IN (2, -1))",
                (
                    f"LIST COLUMNS ({one.label}) (PARTITION {a} VALUES IN ({low}, NULL){comment},"
                    f" PARTITION {b} VALUES IN ({one.type.value(dice)}){', PARTITION ' + c + ' DEFAULT' if self._mariadb else ''})"
                ),
                f"RANGE (TO_DAYS({one.label})) (PARTITION {a} VALUES LESS THAN (700000), PARTITION {b} VALUES LESS THAN MAXVALUE)",
                f"HASH (YEAR({one.label})) PARTITIONS 2",
                f"RANGE (UNIX_TIMESTAMP({one.label})) (PARTITION {a} VALUES LESS THAN (1000), PARTITION {b} VALUES LESS THAN MAXVALUE)",
            )
        )

    def _foreign(self, table: Table) -> Iterator[str]:
        for _ in range(self._dice.choice((0, 0, 1, 2, 3))):
            other = self._dice.choice(self.found)
            mine, theirs = self._dice.choice(table.columns), self._dice.choice(other.columns)
            if self._chance(0.6):  # one that fits
                new = Column(self.names(), theirs.type, generated=False)
                if self._run(f"ALTER TABLE {table.label} ADD {new.label} {theirs.type.sql}"):
                    table.columns.append(new)
                    mine = new
            if self._mariadb and theirs.type.family == "shape":
                continue
            if self._chance(0.5):
                self._run(f"ALTER TABLE {other.label} ADD UNIQUE KEY ({theirs.label})")
            name = f"CONSTRAINT {quote(self.names())} " if self._chance(0.6) else ""
            yield (
                f"ALTER TABLE {table.label} ADD {name}FOREIGN KEY ({mine.label}) REFERENCES {other.label}"
                f" ({theirs.label}){self._dice.choice(_ACTIONS)}"
            )

    def _rows(self, table: Table) -> None:
        dice = self._dice
        written = [column for column in table.columns if not column.generated]
        for _ in range(dice.choice((0, 1, 5, 20, 60))):
            some = [column for column in written if dice.random() < 0.9]
            values = ["NULL" if dice.random() < 0.1 else column.type.value(dice) for column in some]
            names = ", ".join(column.label for column in some)
            self._run(f"INSERT IGNORE INTO {table.label} ({names}) VALUES ({', '.join(values)})")
        if self._chance(0.3):
            self._run(f"UPDATE IGNORE {table.label} SET {dice.choice(table.columns).label} = NULL LIMIT 3")
            self._run(f"DELETE FROM {table.label} LIMIT 2")


def any_whole(dice: random.Random):
    """A type that can count."""
    while True:
        found = any_type(dice, mariadb=False)
        if found.family == "whole" and "zerofill" not in found.sql:
            return found
