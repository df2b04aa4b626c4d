-- late_settle: how each late question goes on, and its lease ends.
-- $1: JSON list of {orphan_id, provider_job_id, asked_at or null, due_at or null (as it was), ended_at or null, ended_because}.
UPDATE makegood_late_questions q
SET leased_until = NULL, deaths = CASE WHEN d.asked_at IS NULL THEN q.deaths ELSE 0 END,
    provider_job_id = coalesce(d.provider_job_id, q.provider_job_id), due_at = coalesce(d.due_at, q.due_at),
    asked = CASE WHEN d.asked_at IS NULL THEN q.asked ELSE q.asked + 1 END, last_asked_at = coalesce(d.asked_at, q.last_asked_at),
    ended_at = d.ended_at, ended_because = d.ended_because
FROM jsonb_to_recordset($1::jsonb) AS d(orphan_id bigint, provider_job_id text, asked_at timestamptz, due_at timestamptz, ended_at timestamptz, ended_because text)
WHERE q.orphan_id = d.orphan_id
  AND q.orphan_id = ANY (ARRAY(SELECT (v ->> 'orphan_id')::bigint FROM jsonb_array_elements($1::jsonb) AS v))
