-- late_jobs: items that were refunded without a job on record and have one by now. $1: provider.
-- $2: now. All open ones of a charge that has a due one, so that a job they share is asked about
-- once.
UPDATE makegood_late_questions AS q
SET provider_job_id = i.provider_job_id
FROM makegood_items i
WHERE q.ended_at IS NULL AND q.provider_job_id IS NULL
  AND q.charge_id IN (SELECT d.charge_id FROM makegood_late_questions d
                      WHERE d.ended_at IS NULL AND d.provider = $1 AND d.due_at <= $2
                        AND d.provider_job_id IS NULL)
  AND i.charge_id = q.charge_id AND i.output_index = q.output_index
  AND i.provider_job_id IS NOT NULL
