-- The rows of rows.sql in the reference tables. The indexes are those of the reference schema, made
-- again after the rows.
INSERT INTO accounts SELECT i::text, 'user' FROM generate_series(1, 5000) i;
INSERT INTO balances SELECT i::text, b, 100000
FROM generate_series(1, 5000) i, (VALUES ('subscription'), ('wallet')) x (b);
INSERT INTO charges
SELECT id, account::text, seed.place('board', i % 4000), seed.place('cell', i), 'replicate',
       'acme/still-life', job, charged_at, 4, 6, NULL
FROM seed.charges ORDER BY charged_at;
INSERT INTO charge_items (charge_id, output_index, credits) SELECT id, 0, 10
FROM seed.charges
ORDER BY charged_at;
INSERT INTO stored_outputs
SELECT CASE kind WHEN 'recovered' THEN 'makegood:' || id || '/0:1' ELSE 'out-' || i END, id, 0,
       'replicate', job, 0,
       seed.place('board', i % 4000), seed.place('cell', i), 's3://bucket/' || i, 'image/png', 1000,
       repeat('a', 64),
       charged_at + interval '1 minute', NULL, NULL
FROM seed.charges WHERE kind IN ('stored', 'recovered') ORDER BY charged_at;
INSERT INTO ledger_entries
SELECT 'draw-' || i, account::text, 'wallet', -10, 'charge', id, NULL, NULL, charged_at
FROM seed.charges
ORDER BY charged_at;
INSERT INTO ledger_entries
SELECT 'makegood:' || id || '/0:wallet', account::text, 'wallet', 6, 'refund', id, 0,
       'makegood:' || id || '/0', charged_at + interval '23 hours'
FROM seed.charges WHERE kind = 'refunded' ORDER BY charged_at;
