-- late_claim: leases due late questions of one provider, oldest first, all of one job together.
-- After late_turn. A lease that was not given back is the death of a pass, and counted. $1:
-- provider. $2: now. $3: leased until. $4: at most so many due ones.
WITH due AS (
    SELECT orphan_id, provider_job_id
    FROM makegood_late_questions
    WHERE provider = $1 AND ended_at IS NULL AND due_at <= $2
      AND (leased_until IS NULL OR leased_until <= $2)
    ORDER BY due_at, orphan_id
    LIMIT $4
), members AS (
    SELECT orphan_id FROM due
    UNION
    SELECT m.orphan_id
    FROM due
    JOIN makegood_late_questions m ON m.provider_job_id = due.provider_job_id AND m.provider = $1
    WHERE m.ended_at IS NULL
)
UPDATE makegood_late_questions
SET lease_token = lease_token + 1, leased_until = $3, deaths = deaths + CASE
    WHEN leased_until IS NULL THEN 0 ELSE 1 END
WHERE orphan_id IN (SELECT orphan_id FROM members) AND ended_at IS NULL
  AND (leased_until IS NULL OR leased_until <= $2)
RETURNING orphan_id, lease_token, refunded_at, last_asked_at, charge_id, output_index, deaths
