-- The tables of one source as views. In the bundle's directory:  duckdb -init data/app/duckdb.sql
-- From elsewhere:  duckdb -cmd "SET file_search_path='/path/to/bundle'" -init /path/to/bundle/data/app/duckdb.sql
CREATE SCHEMA IF NOT EXISTS "shop";
CREATE SCHEMA IF NOT EXISTS "pg_catalog_";
CREATE OR REPLACE VIEW "shop"."Payments" AS SELECT * FROM read_parquet('data/app/tables/0001.shop.payments/*.parquet', union_by_name => true);
CREATE OR REPLACE VIEW "shop"."nothing" AS SELECT * FROM read_parquet('data/app/tables/0002.shop.nothing/*.parquet');
CREATE OR REPLACE VIEW "pg_catalog_"."pg_largeobject" AS SELECT * FROM read_parquet('data/app/tables/0000.pg_catalog.pg_largeobject/*.parquet');
