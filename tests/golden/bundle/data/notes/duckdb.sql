-- The tables of one source as views. In the bundle's directory:  duckdb -init data/notes/duckdb.sql
-- From elsewhere:  duckdb -cmd "SET file_search_path='/path/to/bundle'" -init /path/to/bundle/data/notes/duckdb.sql
CREATE OR REPLACE VIEW "main"."Notes" AS SELECT * FROM read_parquet('data/notes/tables/0001.main.notes/*.parquet', union_by_name => true);
