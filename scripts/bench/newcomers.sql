-- 10,000 charges that have just outlived their grace, of which 500 have no output.
INSERT INTO charges
SELECT 'new-' || i, 'acc-' || (1 + i % 10000), 'proj-' || (i % 5000), 'node-' || i, 'replicate',
       'owner/model', 'njob-' || i,
       now() - interval '16 minutes', 10, 0, NULL
FROM generate_series(1, 10000) i;
INSERT INTO charge_items (charge_id, output_index, credits) SELECT 'new-' || i, 0, 10
FROM generate_series(1, 10000) i;
INSERT INTO stored_outputs
SELECT 'nout-' || i, 'new-' || i, 0, 'replicate', 'njob-' || i, 0, 'proj-' || (i % 5000),
       'node-' || i, 's3://b/o', 'image/png', 1000,
       repeat('a', 64), now(), NULL, NULL
FROM generate_series(1, 10000) i WHERE i % 20 <> 0;
