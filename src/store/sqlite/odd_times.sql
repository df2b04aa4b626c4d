-- odd_times: times by which passes look for what is due and that no pass can come to: before $1, in
-- $2 or later, infinite, or missing. At most 101 of each, read by the index on the time. shape:
-- SQLite's type of the value. Text is later than every number. at: microseconds since 1970, if it
-- is a number.
SELECT 'charges.charged_at' AS place, t.id AS charge_id, typeof(t.charged_at) AS shape,
       CASE WHEN typeof(t.charged_at) IN ('integer', 'real')
           THEN CAST(t.charged_at AS integer) END AS at
FROM (SELECT p.id, p.charged_at FROM charges p WHERE p.charged_at < $1 ORDER BY p.charged_at DESC
      LIMIT 101) AS t
UNION ALL
SELECT 'charges.charged_at' AS place, t.id AS charge_id, typeof(t.charged_at) AS shape,
       CASE WHEN typeof(t.charged_at) IN ('integer', 'real')
           THEN CAST(t.charged_at AS integer) END AS at
FROM (SELECT p.id, p.charged_at FROM charges p WHERE p.charged_at >= $2 ORDER BY p.charged_at
      LIMIT 101) AS t
UNION ALL
SELECT 'charges.charged_at' AS place, t.id AS charge_id, typeof(t.charged_at) AS shape,
       CASE WHEN typeof(t.charged_at) IN ('integer', 'real')
           THEN CAST(t.charged_at AS integer) END AS at
FROM (SELECT p.id, p.charged_at FROM charges p WHERE p.charged_at IS NULL LIMIT 101) AS t
UNION ALL
SELECT 'charge_items.failed_at' AS place, t.charge_id AS charge_id, typeof(t.failed_at) AS shape,
       CASE WHEN typeof(t.failed_at) IN ('integer', 'real')
           THEN CAST(t.failed_at AS integer) END AS at
FROM (SELECT p.charge_id, p.failed_at FROM charge_items p WHERE p.failed_at < $1
      ORDER BY p.failed_at DESC LIMIT 101) AS t
UNION ALL
SELECT 'charge_items.failed_at' AS place, t.charge_id AS charge_id, typeof(t.failed_at) AS shape,
       CASE WHEN typeof(t.failed_at) IN ('integer', 'real')
           THEN CAST(t.failed_at AS integer) END AS at
FROM (SELECT p.charge_id, p.failed_at FROM charge_items p WHERE p.failed_at >= $2
      ORDER BY p.failed_at LIMIT 101) AS t
