INSERT INTO charges
SELECT id, account::text, seed.place('board', i % 4000), seed.place('cell', i), 'replicate',
       'acme/still-life', job,
       timestamptz '$now' - interval '16 minutes', 4, 6, NULL FROM fresh;
INSERT INTO charge_items (charge_id, output_index, credits) SELECT id, 0, 10 FROM fresh;
INSERT INTO stored_outputs
SELECT 'out-' || i, id, 0, 'replicate', job, 0, seed.place('board', i % 4000),
       seed.place('cell', i), 's3://bucket/' || i, 'image/png', 1000,
       repeat('a', 64), timestamptz '$now' - interval '15 minutes', NULL, NULL
       FROM fresh
       WHERE i % 20 <> 0;
UPDATE charge_items SET failed_at = timestamptz '$now' - interval '10 seconds'
WHERE charge_id IN (SELECT id FROM fresh WHERE i % 40 = 0)
  OR charge_id IN (SELECT seed.id(i) FROM generate_series(170001, 170025) AS i);
