-- odd_times: times by which passes look for what is due and that no pass can come to: before $1, in
-- $2 or later, infinite, or missing. At most 101 of each, read by the index on the time. shape:
-- `time`, `infinite` or `null`. at: microseconds since 1970, if it is a number.
SELECT 'charges.charged_at' AS place, t.id AS charge_id, CASE WHEN t.charged_at IS NULL THEN 'null' WHEN isfinite(t.charged_at) THEN 'time' ELSE 'infinite' END AS shape,
       CASE WHEN isfinite(t.charged_at) THEN least(extract(epoch FROM t.charged_at) * 1000000, 9000000000000000000)::bigint END AS at
FROM (SELECT p.id, p.charged_at FROM charges p WHERE p.charged_at < $1 ORDER BY p.charged_at DESC LIMIT 101) AS t
UNION ALL
SELECT 'charges.charged_at' AS place, t.id AS charge_id, CASE WHEN t.charged_at IS NULL THEN 'null' WHEN isfinite(t.charged_at) THEN 'time' ELSE 'infinite' END AS shape,
       CASE WHEN isfinite(t.charged_at) THEN least(extract(epoch FROM t.charged_at) * 1000000, 9000000000000000000)::bigint END AS at
FROM (SELECT p.id, p.charged_at FROM charges p WHERE p.charged_at >= $2 ORDER BY p.charged_at LIMIT 101) AS t
UNION ALL
SELECT 'charges.charged_at' AS place, t.id AS charge_id, CASE WHEN t.charged_at IS NULL THEN 'null' WHEN isfinite(t.charged_at) THEN 'time' ELSE 'infinite' END AS shape,
       CASE WHEN isfinite(t.charged_at) THEN least(extract(epoch FROM t.charged_at) * 1000000, 9000000000000000000)::bigint END AS at
FROM (SELECT p.id, p.charged_at FROM charges p WHERE p.charged_at IS NULL LIMIT 101) AS t
UNION ALL
SELECT 'charge_items.failed_at' AS place, t.charge_id AS charge_id, CASE WHEN t.failed_at IS NULL THEN 'null' WHEN isfinite(t.failed_at) THEN 'time' ELSE 'infinite' END AS shape,
       CASE WHEN isfinite(t.failed_at) THEN least(extract(epoch FROM t.failed_at) * 1000000, 9000000000000000000)::bigint END AS at
FROM (SELECT p.charge_id, p.failed_at FROM charge_items p WHERE p.failed_at < $1 ORDER BY p.failed_at DESC LIMIT 101) AS t
UNION ALL
SELECT 'charge_items.failed_at' AS place, t.charge_id AS charge_id, CASE WHEN t.failed_at IS NULL THEN 'null' WHEN isfinite(t.failed_at) THEN 'time' ELSE 'infinite' END AS shape,
       CASE WHEN isfinite(t.failed_at) THEN least(extract(epoch FROM t.failed_at) * 1000000, 9000000000000000000)::bigint END AS at
FROM (SELECT p.charge_id, p.failed_at FROM charge_items p WHERE p.failed_at >= $2 ORDER BY p.failed_at LIMIT 101) AS t
