-- insert_answers: keeps what providers said, one row a question.
-- $1: JSON list of {provider, provider_job_id, asked_at, verdict, class, code, message, offered, request, http_status, excerpt}.
INSERT INTO makegood_answers (provider, provider_job_id, asked_at, verdict, class, code, message, offered, request, http_status, excerpt)
SELECT d.provider, d.provider_job_id, d.asked_at, d.verdict, d.class, d.code, d.message, d.offered, d.request, d.http_status, d.excerpt
FROM jsonb_to_recordset($1::jsonb) AS d(provider text, provider_job_id text, asked_at timestamptz, verdict text, class text, code text, message text, offered bigint, request text, http_status bigint, excerpt text)
WHERE true
RETURNING id, provider, provider_job_id, asked_at, verdict
