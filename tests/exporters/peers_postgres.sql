CREATE TABLE kept (id serial PRIMARY KEY, wide numeric(60, 20), plain numeric, money_ numeric(12, 2), day date, at timestamptz,
  squares int[], based int[], padded char(6), twice numeric GENERATED ALWAYS AS (money_ * 2) STORED, u uuid DEFAULT gen_random_uuid());
INSERT INTO kept (wide, plain, money_, day, at, squares, based, padded) VALUES
  (1234567890123456789012345678901234567890.12345678901234567890, 0.1, 'NaN', 'infinity', '-infinity', '{{1,2},{3,4}}', '[0:1]={7,8}', 'ab'),
  (-0.00000000000000000001, 'NaN', 9999999999.99, '0009-01-02', '0044-03-15 00:00:00+00 BC', '{5}', '{6}', 'abcdef');
CREATE TABLE many AS SELECT n, repeat('x', 200) AS t FROM generate_series(1, 3000) n; ALTER TABLE many ADD PRIMARY KEY (n); ANALYZE many;
SELECT setval('kept_id_seq', 4711);
