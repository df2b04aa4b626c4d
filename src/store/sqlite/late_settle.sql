-- late_settle: how each late question goes on, and its lease ends. $1: JSON list of {orphan_id,
-- provider_job_id, asked_at or null, due_at or null (as it was), ended_at or null, ended_because}.
UPDATE makegood_late_questions AS q
SET leased_until = NULL, deaths = CASE WHEN d.asked_at IS NULL THEN q.deaths ELSE 0 END,
    provider_job_id = coalesce(d.provider_job_id, q.provider_job_id),
    due_at = coalesce(d.due_at, q.due_at),
    asked = CASE WHEN d.asked_at IS NULL THEN q.asked ELSE q.asked + 1 END,
    last_asked_at = coalesce(d.asked_at, q.last_asked_at),
    ended_at = d.ended_at, ended_because = d.ended_because
FROM (SELECT value ->> 'orphan_id' AS orphan_id, value ->> 'provider_job_id' AS provider_job_id,
             value ->> 'asked_at' AS asked_at, value ->> 'due_at' AS due_at,
             value ->> 'ended_at' AS ended_at, value ->> 'ended_because' AS ended_because
             FROM json_each($1)) AS d
WHERE q.orphan_id = d.orphan_id
