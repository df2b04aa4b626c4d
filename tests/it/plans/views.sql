-- The rows of rows.sql in the tables of platform.sql.
INSERT INTO people SELECT i, false FROM generate_series(1, 5000) i;
INSERT INTO wallets SELECT i, k, 100000 FROM generate_series(1, 5000) i, generate_series(0, 1) k;
INSERT INTO runs
SELECT id::uuid, account, seed.place('board', i % 4000)::uuid, seed.place('cell', i)::uuid,
       'replicate', 'acme/still-life', job,
       charged_at AT TIME ZONE 'UTC', 4, 6, NULL
FROM seed.charges ORDER BY charged_at;
INSERT INTO shots SELECT id::uuid, 0, 10, NULL, NULL, NULL FROM seed.charges ORDER BY charged_at;
INSERT INTO media
SELECT CASE kind WHEN 'recovered' THEN 'makegood:' || id || '/0:1' ELSE 'out-' || i END, id::uuid,
       0, 'replicate', job, 0,
       seed.place('board', i % 4000)::uuid, seed.place('cell', i)::uuid, 's3://bucket/' || i,
       'image/png', 1000, repeat('a', 64),
       charged_at AT TIME ZONE 'UTC' + interval '1 minute', NULL, NULL
FROM seed.charges WHERE kind IN ('stored', 'recovered') ORDER BY charged_at;
INSERT INTO journal
SELECT 'draw-' || i, account, 1, -10, 0, id::uuid, NULL, NULL, charged_at AT TIME ZONE 'UTC'
FROM seed.charges
ORDER BY charged_at;
INSERT INTO journal
SELECT 'makegood:' || id || '/0:wallet', account, 1, 6, 1, id::uuid, 0, 'makegood:' || id || '/0',
       charged_at AT TIME ZONE 'UTC' + interval '23 hours'
FROM seed.charges WHERE kind = 'refunded' ORDER BY charged_at;
