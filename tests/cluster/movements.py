"""Tables that are large enough for a worker to die amid them."""


def made(tables: int, rows: int = 30_000) -> str:
    """Return the SQL that makes so many tables of movements, ``movements_0`` and so on, of so many rows each."""
    return "".join(
        f"""
CREATE TABLE movements_{n} (id bigint PRIMARY KEY, amount numeric(12,2), note text);
INSERT INTO movements_{n} SELECT i, (i % 1000) - 499.5, md5(i::text) || md5((i + 1)::text)
  FROM generate_series(1, {rows}) i;
"""
        for n in range(tables)
    )
