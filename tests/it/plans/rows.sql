-- 200,000 charges of one item each, by number from the oldest, written into tables of the test's
-- own first: the two kinds of platform take them from there. $now is when the world begins.
--   1 to 170,000: evenly over 20 days up to half an hour ago. Of the newest 23 hours, one in 25 is
--       an orphan to be found.
--   170,001 to 200,000: over the last week, each with an orphan that waits (20,000) or that the
--       brake holds (10,000).
-- Of the old ones, one in 8 was refunded and one in 40 recovered, by passes every five minutes.
CREATE SCHEMA seed;
CREATE FUNCTION seed.id(i bigint) RETURNS text IMMUTABLE
LANGUAGE sql AS $$ SELECT md5('run' || i)::uuid::text $$;
CREATE FUNCTION seed.place(what text, i bigint) RETURNS text IMMUTABLE
LANGUAGE sql AS $$ SELECT md5(what || i)::uuid::text $$;
CREATE UNLOGGED TABLE seed.charges AS
SELECT x.i, seed.id(x.i) AS id, (1 + x.i * 7919 % 5000) AS account,
       CASE WHEN x.kind = 'wait'
            THEN timestamptz '$now' - interval '2 hours' - (x.i - 170000) * interval '20 seconds'
            ELSE timestamptz '$now' - interval '30 minutes'
                 - (170000 - x.i) * interval '10.154 seconds' END AS charged_at,
       x.kind,
       CASE WHEN x.kind = 'new'
            THEN (CASE x.i / 25 % 10 WHEN 6 THEN 'running-' WHEN 7 THEN 'ok-' WHEN 8 THEN 'unknown-'
                                     ELSE 'failed-' END) || x.i
            WHEN x.kind = 'wait' THEN 'running-' || x.i ELSE 'job-' || x.i END AS job
FROM (SELECT i, CASE WHEN i > 170000 THEN 'wait' WHEN i > 162000 AND i % 25 = 1 THEN 'new'
                     WHEN i > 160000 THEN 'stored'
                     WHEN i % 8 = 0 THEN 'refunded' WHEN i % 40 = 4 THEN 'recovered'
                     ELSE 'stored' END AS kind
      FROM generate_series(1, 200000) AS i) AS x;
