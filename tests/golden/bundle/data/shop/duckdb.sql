-- The tables of one source as views. In the bundle's directory:  duckdb -init data/shop/duckdb.sql
-- From elsewhere:  duckdb -cmd "SET file_search_path='/path/to/bundle'" -init /path/to/bundle/data/shop/duckdb.sql
CREATE OR REPLACE VIEW "main"."goods" AS SELECT * FROM read_parquet('data/shop/tables/0001.goods/*.parquet', union_by_name => true);
