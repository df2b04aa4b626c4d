-- find_stored_late: the next chunk of refunds, and those whose item has its output by now, not
-- recorded yet (P20). $1, $2: the refund after which the chunk begins (time, id). $3: refunded at
-- or before this. $4: refunds in the chunk. A row without looked_at is such a refund. Its output:
-- what is delivered by rule 1, else what is stored for its job and output and is linked to nothing
-- else. The last row describes the chunk: its last refund and time, and how many refunds it has;
-- fewer than $4: the stretch ends here. No row: nothing is left.
WITH chunk AS MATERIALIZED (
    SELECT r.id, r.charge_id, r.output_index, r.provider, r.model, r.refunded_at
    FROM makegood_refunds r
    WHERE r.refunded_at >= $1 AND (r.refunded_at, r.id) > ($1, $2) AND r.refunded_at <= $3
    ORDER BY r.refunded_at, r.id
    LIMIT $4
), seen AS (
    SELECT r.id, o.id AS orphan_id, r.charge_id, r.output_index, r.provider, r.model,
           i.provider_job_id,
           coalesce((SELECT min(d.stored_output_id) FROM makegood_deliveries d
                     WHERE d.charge_id = r.charge_id AND d.output_index = r.output_index),
                    (SELECT min(s.id) FROM stored_outputs s
                     WHERE s.provider_job_id = i.provider_job_id AND s.provider = i.provider
                       AND s.provider_output_index = i.provider_output_index
                       AND (s.charge_id IS NULL OR s.output_index IS NULL
                            OR s.charge_id = r.charge_id
                            AND s.output_index = r.output_index))) AS stored_output_id
    FROM chunk r
    JOIN makegood_orphans o ON o.charge_id = r.charge_id AND o.output_index = r.output_index
    JOIN makegood_items i ON i.charge_id = r.charge_id AND i.output_index = r.output_index
    WHERE (SELECT count(*) FROM makegood_late_successes l
           WHERE l.charge_id = r.charge_id AND l.output_index = r.output_index) = 0
)
SELECT s.id AS refund_id, s.orphan_id, s.charge_id, s.output_index, s.provider, s.model,
       s.provider_job_id,
       s.stored_output_id, NULL AS at, NULL AS looked_at
FROM seen s
WHERE s.stored_output_id IS NOT NULL
UNION ALL
SELECT last.id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, last.refunded_at,
       (SELECT count(*) FROM chunk)
FROM (SELECT c.id, c.refunded_at FROM chunk c ORDER BY c.refunded_at DESC, c.id DESC
      LIMIT 1) AS last
