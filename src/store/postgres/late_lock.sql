-- late_lock: locks the listed late questions in the order of their ids and returns the token each has now.
-- $1: JSON list of orphan ids. What has ended, or is not leased any more, returns no row.
SELECT orphan_id, lease_token
FROM makegood_late_questions
WHERE orphan_id = ANY (ARRAY(SELECT v::bigint FROM jsonb_array_elements_text($1::jsonb) AS v))
  AND ended_at IS NULL AND leased_until IS NOT NULL
ORDER BY orphan_id
FOR UPDATE
