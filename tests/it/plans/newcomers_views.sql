INSERT INTO runs
SELECT id::uuid, account, seed.place('board', i % 4000)::uuid, seed.place('cell', i)::uuid,
       'replicate', 'acme/still-life', job,
       timestamptz '$now' AT TIME ZONE 'UTC' - interval '16 minutes', 4, 6, NULL FROM fresh;
INSERT INTO shots SELECT id::uuid, 0, 10, NULL, NULL, NULL FROM fresh;
INSERT INTO media
SELECT 'out-' || i, id::uuid, 0, 'replicate', job, 0, seed.place('board', i % 4000)::uuid,
       seed.place('cell', i)::uuid, 's3://bucket/' || i,
       'image/png', 1000, repeat('a', 64),
       timestamptz '$now' AT TIME ZONE 'UTC' - interval '15 minutes', NULL, NULL
FROM fresh WHERE i % 20 <> 0;
UPDATE shots SET broke = timestamptz '$now' AT TIME ZONE 'UTC' - interval '10 seconds'
WHERE run IN (SELECT id::uuid FROM fresh WHERE i % 40 = 0)
  OR run IN (SELECT seed.id(i)::uuid FROM generate_series(170001, 170025) AS i);
