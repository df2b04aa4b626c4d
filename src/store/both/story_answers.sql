-- story_answers: what providers said, as far as decisions about one charge rest on it. $1: the charge's id.
SELECT id, provider, provider_job_id, asked_at, verdict, class, code, message, offered, request, http_status, excerpt
FROM makegood_answers
WHERE id IN (SELECT answer_id FROM makegood_orphan_events WHERE charge_id = $1)
ORDER BY id
