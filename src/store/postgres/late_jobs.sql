-- late_jobs: items that were refunded without a job on record and have one by now. $1: provider. $2: now.
-- All open ones of a charge that has a due one, so that a job they share is asked about once.
-- Read by key (OFFSET 0, = ANY (ARRAY(…))): the planner has no join order to choose.
WITH found AS MATERIALIZED (
    SELECT o.orphan_id, i.provider_job_id
    FROM (SELECT DISTINCT d.charge_id FROM makegood_late_questions d
          WHERE d.ended_at IS NULL AND d.provider = $1 AND d.due_at <= $2 AND d.provider_job_id IS NULL) AS due
    CROSS JOIN LATERAL (SELECT p.orphan_id, p.charge_id, p.output_index FROM makegood_late_questions p
                        WHERE p.charge_id = due.charge_id AND p.ended_at IS NULL AND p.provider_job_id IS NULL
                        OFFSET 0) AS o
    CROSS JOIN LATERAL (SELECT p.provider_job_id FROM makegood_items p
                        WHERE p.charge_id = o.charge_id AND p.output_index = o.output_index
                          AND p.provider_job_id IS NOT NULL
                        OFFSET 0) AS i
)
UPDATE makegood_late_questions AS q
SET provider_job_id = found.provider_job_id
FROM found
WHERE q.orphan_id = found.orphan_id AND q.orphan_id = ANY (ARRAY(SELECT orphan_id FROM found))
