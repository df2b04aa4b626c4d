-- find_stored_late: refunds of a stretch of time whose item has its output by now, not told yet (P20).
-- $1: refunded after this. $2: at or before this. Costs follow the refunds in between.
-- Its output: what is delivered by rule 1, else what is stored for its job and output and hangs on nothing else.
SELECT x.refund_id, x.orphan_id, x.charge_id, x.output_index, x.provider, x.model, x.provider_job_id, x.stored_output_id
FROM (
    SELECT r.id AS refund_id, o.id AS orphan_id, r.charge_id, r.output_index, r.provider, r.model, i.provider_job_id,
           coalesce((SELECT min(d.stored_output_id) FROM makegood_deliveries d
                     WHERE d.charge_id = r.charge_id AND d.output_index = r.output_index),
                    (SELECT min(s.id) FROM stored_outputs s
                     WHERE s.provider_job_id = i.provider_job_id AND s.provider = i.provider
                       AND s.provider_output_index = i.provider_output_index
                       AND (s.charge_id IS NULL OR s.output_index IS NULL
                            OR s.charge_id = r.charge_id AND s.output_index = r.output_index))) AS stored_output_id
    FROM makegood_refunds r
    JOIN makegood_orphans o ON o.charge_id = r.charge_id AND o.output_index = r.output_index
    JOIN makegood_items i ON i.charge_id = r.charge_id AND i.output_index = r.output_index
    WHERE r.refunded_at > $1 AND r.refunded_at <= $2
      AND NOT EXISTS (SELECT 1 FROM makegood_late_successes l
                      WHERE l.charge_id = r.charge_id AND l.output_index = r.output_index)
) AS x
WHERE x.stored_output_id IS NOT NULL
