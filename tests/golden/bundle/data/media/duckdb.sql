-- The tables of one source as views. In the bundle's directory:  duckdb -init data/media/duckdb.sql
-- From elsewhere:  duckdb -cmd "SET file_search_path='/path/to/bundle'" -init /path/to/bundle/data/media/duckdb.sql
CREATE OR REPLACE VIEW "main"."objects" AS SELECT * FROM read_parquet('data/media/index/*.parquet', union_by_name => true);
