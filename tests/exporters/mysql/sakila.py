"""Sakila in a MariaDB: types mapped, the same rows, views, routines, triggers and an event in its own words."""

import re

from tests.exporters.mysql.databases import open_database, run_sql
from tests.sakila import Column, Sakila, Table, elements

_TYPES = {
    "boolean": "BOOLEAN",
    "bytea": "BLOB",
    "mpaa_rating": "ENUM('G','PG','PG-13','R','NC-17')",
    "text[]": "SET('Trailers','Commentaries','Deleted Scenes','Behind the Scenes')",
    "timestamp without time zone": "DATETIME(6)",
    "tsvector": "LONGTEXT",
}
_BEFORE = "SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT'; SET foreign_key_checks = 0;"
_CODE = """
CREATE FUNCTION inventory_in_stock(p_inventory_id INT) RETURNS BOOLEAN READS SQL DATA
BEGIN
  DECLARE v_out INT;
  -- an item is in stock if all of its rentals have come back
  SELECT COUNT(*) INTO v_out FROM rental WHERE inventory_id = p_inventory_id AND return_date IS NULL;
  RETURN v_out = 0;
END;
CREATE FUNCTION inventory_held_by_customer(p_inventory_id INT) RETURNS INT READS SQL DATA
BEGIN
  DECLARE EXIT HANDLER FOR NOT FOUND RETURN NULL;
  RETURN (SELECT customer_id FROM rental WHERE return_date IS NULL AND inventory_id = p_inventory_id);
END;
CREATE PROCEDURE film_in_stock(IN p_film_id INT, IN p_store_id INT, OUT p_film_count INT) READS SQL DATA
  SELECT COUNT(*) INTO p_film_count FROM inventory
   WHERE film_id = p_film_id AND store_id = p_store_id AND inventory_in_stock(inventory_id);
CREATE PROCEDURE rewards_report(IN least INT UNSIGNED) READS SQL DATA SQL SECURITY DEFINER COMMENT 'who spends most'
  SELECT customer.*, p.name FROM customer JOIN (SELECT customer_id, 'n:' || COUNT(*) AS name FROM payment
    GROUP BY customer_id HAVING COUNT(*) > least) p USING (customer_id);
CREATE EVENT nothing_yet ON SCHEDULE EVERY 1 DAY STARTS '2035-01-01 00:00:00' DO DELETE FROM payment WHERE amount < 0;
"""
TRIGGERS = ("actor", "address", "category", "city", "country", "customer", "film", "film_actor", "film_category",
            "inventory", "language", "rental", "staff", "store")  # fmt: skip


def make_sakila(url: str, sakila: Sakila) -> None:
    """Make and fill it."""
    tables = ";".join(_table(table) for table in sakila.tables)
    views = ";".join(
        f"CREATE VIEW {name} AS {query}".replace('"substring"', "substring") for name, query in sakila.views
    )
    triggers = ";".join(
        f"CREATE TRIGGER {name}_last_updated BEFORE UPDATE ON {name} FOR EACH ROW"
        " SET NEW.last_update = CURRENT_TIMESTAMP"
        for name in TRIGGERS
    )
    run_sql(url, f"{_BEFORE}{tables};{views};{triggers};{_CODE}")
    with open_database(url) as connection, connection.cursor() as cursor:
        cursor.execute("SET foreign_key_checks = 0")
        for name, rows in sakila.rows.items():
            columns = sakila.columns(name)
            marks = ", ".join(["%s"] * len(columns))
            values = [tuple(map(_value, columns, row)) for row in rows]
            cursor.executemany(f"INSERT INTO {name} VALUES ({marks})", values)


def _table(table: Table) -> str:
    parts = [_column(column) for column in table.columns]
    if table.primary:
        parts.append(f"PRIMARY KEY ({table.primary})")
    elif table.columns[0].serial:
        parts.append(f"KEY ({table.columns[0].name})")
    parts += [f"{'UNIQUE ' * one}KEY {name} ({on})" for one, name, on in table.indexes]
    parts += [f"CONSTRAINT {name} {re.sub('SET NULL', 'RESTRICT', words)}" for name, words in table.foreign]
    parts += [f"CONSTRAINT {table.name}_payment_date_check CHECK {table.check}"] if table.check else []
    parts += ["FULLTEXT KEY film_fulltext_idx (title, description)"] if table.name == "film" else []
    return f"CREATE TABLE {table.name} ({', '.join(parts)}) CHARACTER SET utf8mb4"


def _column(column: Column) -> str:
    type_ = _TYPES.get(column.type, column.type.replace("character varying", "varchar"))
    default = " DEFAULT CURRENT_TIMESTAMP(6)" if column.name == "last_update" else ""
    rest = f"{' NOT NULL' * column.not_null}{default}{' AUTO_INCREMENT' * column.serial}"
    return f'"{column.name}" {type_}{rest}'


def _value(column: Column, value: str | None) -> str | bytes | bool | None:
    if value is None:
        return None
    if column.type == "boolean":
        return value == "t"
    if column.type == "bytea":
        return bytes.fromhex(value.removeprefix("\\x"))
    return ",".join(elements(value)) if column.type == "text[]" else value
